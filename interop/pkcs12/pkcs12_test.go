// Package pkcs12_test does what the doc comment of apns.ParseCertificate says about a .p12 file.
package pkcs12_test

import (
	"context"
	"crypto/tls"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"software.sslmate.com/src/go-pkcs12"
)

// load loads the certificate of a .p12 file, with the lines of the doc comment.
func load(p12 []byte, password string) (tls.Certificate, error) {
	key, leaf, _, err := pkcs12.DecodeChain(p12, password)
	if err != nil {
		return tls.Certificate{}, err
	}
	err = apns.InspectCertificate(leaf).Check("com.example.app", time.Now())
	if err != nil {
		return tls.Certificate{}, err
	}
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	return cert, nil
}

// A certificate from a .p12 file pushes: in the old encryption of Keychain Access, and in the
// present one.
func TestP12(t *testing.T) {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := server.Config().TLS.Certificates[0]
	for name, encoder := range map[string]*pkcs12.Encoder{"legacy": pkcs12.LegacyRC2, "modern": pkcs12.Modern} {
		t.Run(name, func(t *testing.T) {
			p12, err := encoder.Encode(client.PrivateKey, client.Leaf, nil, "secret")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := load(p12, "other"); err == nil {
				t.Error("with another password: got no error")
			}
			cert, err := load(p12, "secret")
			if err != nil {
				t.Fatal(err)
			}
			config := server.Config()
			config.TLS.Certificates = []tls.Certificate{cert}
			client := &apns.Client{Config: config}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := client.Push(ctx, &apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello")}); err != nil {
				t.Error(err)
			}
		})
	}
}

// The lines of the doc comment, and of docs/from-apns2.md, are those of load.
func TestDocumentedLines(t *testing.T) {
	here, err := os.ReadFile("pkcs12_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, pattern := range map[string]string{
		"../../certificate.go":     `(?m)^//\t(.*(?:pkcs12\.|InspectCertificate|tls\.Certificate\{Certificate).*)$`,
		"../../docs/from-apns2.md": `(?m)^    (.*(?:pkcs12\.|InspectCertificate|tls\.Certificate\{Certificate).*)$`,
	} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1)
		if len(lines) != 3 {
			t.Errorf("%s has %d lines, want 3", name, len(lines))
		}
		for _, line := range lines {
			if !strings.Contains(string(here), "\n\t"+line[1]+"\n") {
				t.Errorf("%s has %q, which this test does not do", name, line[1])
			}
		}
	}
}
