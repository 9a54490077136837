package examples_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// The commands of the README and of the pages under docs that run a program here.
func TestDocumentedCommands(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	_, _, ca, p8 := files(t, s)
	replacer := strings.NewReplacer(
		"-p8 AuthKey_ABC123DEFG.p8", "-addr "+s.HTTP2Addr+" -ca "+ca+" -p8 "+p8,
		"ABC123DEFG", apnstest.KeyID,
		"DEF123GHIJ", apnstest.TeamID,
		"go run ./", bin+"/",
		"./examples/", "./",
		"examples/", "",
	)
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range regexp.MustCompile("(?m)^    (go run .*)$|`(go run [^`]*)`").FindAllStringSubmatch(string(text), -1) {
			line := replacer.Replace(command[1] + command[2])
			if strings.Contains(line, "/local") {
				continue // it ends with Ctrl-C: see TestLocal
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "sh", "-c", line)
			cmd.Env = append(os.Environ(), "TOKEN="+token)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", page, line, err, out)
			}
			commands++
		}
	}
	if commands < 3 {
		t.Errorf("%d commands were found, want 3 or more", commands)
	}
}

// The commands of the go tool in CONTRIBUTING.md, with less work; and go doc of the README. A
// command that is not in the table is an error.
func TestDocumentedGoCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the go command")
	}
	less := map[string]string{ // the command that runs here; "": the same
		"go doc -all example.com/apns":                     "",
		"go test -list '^Fuzz' .":                          "",
		"go test -run '^$' -fuzz '^FuzzReadMsg$' .":        "go test -run '^$' -fuzz '^FuzzReadMsg$' -fuzztime 1x .",
		"go test -run '^$' -bench . -count 6 .":            "go test -run '^$' -bench . -count 1 -benchtime 1x .",
		"go test -run Simulation -sim 100000 -timeout 0 .": "go test -run Simulation -sim 10 -repeat 1 -timeout 0 .",
		"go test -run Simulation -seed 4711 .":             "go test -run Simulation -seed 4711 -repeat 1 .",
		"go test ./...":                                    "skip", // this test is a part of it
		"go test -v ./interop":                             "skip", // CI runs it in a step of its own
	}
	seen := make(map[string]bool)
	for page, want := range map[string]int{"../README.md": 1, "../CONTRIBUTING.md": 7} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		commands := regexp.MustCompile("(?m)^ {4,}(go (?:test|doc) [^#\n]*)|`(go (?:test|doc) [^`]*)`").FindAllStringSubmatch(string(text), -1)
		for _, found := range commands {
			command := strings.TrimSpace(found[1] + found[2])
			here, known := less[command]
			switch {
			case !known:
				t.Errorf("%s has the command %q, which is not in the table of this test", page, command)
			case seen[command] || here == "skip":
			default:
				here = cmp.Or(here, command)
				cmd := exec.CommandContext(t.Context(), "sh", "-c", here)
				cmd.Dir = ".."
				out, err := cmd.CombinedOutput()
				if err != nil || len(out) == 0 || strings.Contains(string(out), "no tests to run") {
					t.Errorf("%s: %s: got %v, want success and some tests\n%s", page, here, err, out)
				}
			}
			seen[command] = true
		}
		if len(commands) < want {
			t.Errorf("%s has %d commands, want %d or more", page, len(commands), want)
		}
	}
	for command := range less {
		if !seen[command] {
			t.Errorf("no page has the command %q", command)
		}
	}
}

// What the README says about certificates: a request, what Apple makes of it, and a .p12.
func TestDocumentedCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("`(openssl [^`]*)`").FindAllStringSubmatch(string(text), -1)
	if len(commands) != 3 {
		t.Fatalf("the README has %d commands, want 3: a request, DER to PEM, .p12 to PEM", len(commands))
	}
	dir := t.TempDir()
	sh := func(command string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
		cmd.Dir, cmd.Stdin = dir, strings.NewReader("\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	sh(commands[0][1])
	writeCertificate(t, dir)
	sh(commands[1][1])
	if _, err := apns.LoadCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), apnstest.BundleID); err != nil {
		t.Error(err)
	}
	sh("openssl pkcs12 -export -legacy -in cert.pem -inkey key.pem -out push.p12 -passout pass:")
	sh(commands[2][1] + " -passin pass:")
	if _, err := apns.LoadCertificate(filepath.Join(dir, "push.pem"), "", apnstest.BundleID); err != nil {
		t.Error(err)
	}
}

// writeCertificate does what the developer portal does: it makes aps.cer of request.csr.
func writeCertificate(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "request.csr"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	keyText, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	keyBlock, _ := pem.Decode(keyText)
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		Subject: pkix.Name{
			CommonName: "Apple Push Services: " + apnstest.BundleID,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: apnstest.BundleID}},
		},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, request.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "aps.cer"), der, 0o666); err != nil {
		t.Fatal(err)
	}
}
