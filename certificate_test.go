package apns_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// Extensions of Apple's certificates. Those for the environments have the value NULL.
func extension(last int, value []byte) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 3, last}, Value: value}
}

// ofKind is the extension that says what a certificate of Apple's is for.
func ofKind(last int) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 6, 1, last}, Value: asn1Null}
}

var (
	asn1Null   = []byte{0x05, 0x00}
	sandbox    = extension(1, asn1Null)
	production = extension(2, asn1Null)
	// The topics of an app with a VoIP service.
	topics = extension(6, slices.Concat(
		[]byte{0x30, 42},                     // SEQUENCE of 42 bytes
		[]byte{0x0c, 9}, []byte("com.x.app"), // UTF8String: the topic
		[]byte{0x30, 5, 0x0c, 3}, []byte("app"), // SEQUENCE, UTF8String: its kind
		[]byte{0x0c, 14}, []byte("com.x.app.voip"),
		[]byte{0x30, 6, 0x0c, 4}, []byte("voip"),
	))
)

// subject is that of Apple's certificate for an app.
func subject(kind, userID string) pkix.Name {
	name := pkix.Name{CommonName: kind + ": " + userID, Country: []string{"US"}}
	if userID != "" {
		name.ExtraNames = []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: userID}}
	}
	return name
}

// pushTemplate is Apple Push Notification service SSL (Sandbox & Production).
func pushTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject:         subject("Apple Push Services", "com.x.app"),
		NotBefore:       time.Now().Add(-time.Hour),
		NotAfter:        time.Now().Add(365 * 24 * time.Hour),
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{sandbox, production, topics},
	}
}

// newCertificate signs a certificate for the key with an authority of Apple's name.
func newCertificate(t *testing.T, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "Apple Worldwide Developer Relations", Organization: []string{"Apple Inc."}}}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateParse(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecCert, rsaCert := newCertificate(t, pushTemplate(), ec), newCertificate(t, pushTemplate(), rsaKey)
	between := newCertificate(t, &x509.Certificate{Subject: pkix.Name{CommonName: "WWDR"}, IsCA: true, BasicConstraintsValid: true}, ecKey(t, elliptic.P256()))
	ecPEM, rsaPEM, betweenPEM := pemOf("CERTIFICATE", ecCert.Raw), pemOf("CERTIFICATE", rsaCert.Raw), pemOf("CERTIFICATE", between.Raw)
	sec1DER, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pemOf("EC PRIVATE KEY", sec1DER)
	pkcs1 := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))
	bag := "Bag Attributes\n    friendlyName: Apple Push Services: com.x.app\n    localKeyID: 0A 1B\nsubject=UID = com.x.app\n\nissuer=C = US, O = Apple Inc.\n\n"
	for name, test := range map[string]struct {
		cert, key string
		want      []*x509.Certificate
	}{
		"PKCS #8":                {ecPEM, pkcs8(t, ec), []*x509.Certificate{ecCert}},
		"PKCS #8, RSA":           {rsaPEM, pkcs8(t, rsaKey), []*x509.Certificate{rsaCert}},
		"PKCS #1":                {rsaPEM, pkcs1, []*x509.Certificate{rsaCert}},
		"SEC 1":                  {ecPEM, sec1, []*x509.Certificate{ecCert}},
		"SEC 1 with the curve":   {ecPEM, pemOf("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}) + sec1, []*x509.Certificate{ecCert}},
		"one file":               {ecPEM + sec1, "", []*x509.Certificate{ecCert}},
		"one file, key first":    {sec1 + ecPEM, "", []*x509.Certificate{ecCert}},
		"with an intermediate":   {ecPEM + betweenPEM, sec1, []*x509.Certificate{ecCert, between}},
		"the intermediate first": {betweenPEM + ecPEM, sec1, []*x509.Certificate{ecCert, between}},
		"twice":                  {ecPEM + betweenPEM + ecPEM, sec1, []*x509.Certificate{ecCert, between}},
		"of openssl pkcs12":      {bag + ecPEM + bag + betweenPEM, bag + sec1, []*x509.Certificate{ecCert, between}},
		"DER":                    {string(ecCert.Raw), sec1, []*x509.Certificate{ecCert}},
		"DER, and its key":       {string(rsaCert.Raw), string(x509.MarshalPKCS1PrivateKey(rsaKey)), []*x509.Certificate{rsaCert}},
		`\n as two characters`:   {strings.ReplaceAll(ecPEM+betweenPEM, "\n", `\n`), strings.ReplaceAll(sec1, "\n", `\n`), []*x509.Certificate{ecCert, between}},
		"no line breaks":         {strings.ReplaceAll(ecPEM+sec1, "\n", ""), "", []*x509.Certificate{ecCert}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := apns.ParseCertificate([]byte(test.cert), []byte(test.key), "com.x.app")
			if err != nil {
				t.Fatal(err)
			}
			wantCertificate(t, got, test.want)
			dir := t.TempDir()
			certFile, keyFile := filepath.Join(dir, "cert.pem"), ""
			if err := os.WriteFile(certFile, []byte(test.cert), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.key != "" {
				keyFile = filepath.Join(dir, "key.pem")
				if err := os.WriteFile(keyFile, []byte(test.key), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err = apns.LoadCertificate(certFile, keyFile, "com.x.app.voip")
			if err != nil {
				t.Fatal(err)
			}
			wantCertificate(t, got, test.want)
		})
	}
}

func wantCertificate(t *testing.T, got tls.Certificate, want []*x509.Certificate) {
	t.Helper()
	if !slices.EqualFunc(got.Certificate, want, func(der []byte, c *x509.Certificate) bool { return slices.Equal(der, c.Raw) }) {
		t.Errorf("got a chain of %d certificates, want these %d", len(got.Certificate), len(want))
	}
	if !got.Leaf.Equal(want[0]) {
		t.Errorf("Leaf: got %v, want %v", got.Leaf.Subject, want[0].Subject)
	}
	if public, ok := want[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(got.PrivateKey.(crypto.Signer).Public()) {
		t.Error("PrivateKey: got another key, want that of the certificate")
	}
}

// Each error says what came and what was expected, and shows nothing of the key.
func TestCertificateMalformed(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	cert := pemOf("CERTIFICATE", newCertificate(t, pushTemplate(), ec).Raw)
	key, other := pkcs8(t, ec), pkcs8(t, ecKey(t, elliptic.P384()))
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(c *x509.Certificate)) string {
		template := pushTemplate()
		change(template)
		return pemOf("CERTIFICATE", newCertificate(t, template, ec).Raw)
	}
	development := func(c *x509.Certificate) {
		// Its user ID is that of the developer.
		c.Subject, c.ExtraExtensions = subject("Apple Development", "A1B2C3D4E5"), nil
	}
	const expectedPush = "certificate is not for push notifications, expected an Apple Push Notification service SSL certificate: "
	for _, test := range []struct {
		name, cert, key, bundleID string
		want                      string
	}{
		{"another key", cert, other, "", `the certificate's key is an ECDSA key on the curve P-384 that belongs to another certificate, expected that of "Apple Push Services: com.x.app"`},
		{"no text", "", key, "", "certificate has no PEM in its 0 bytes, expected -----BEGIN CERTIFICATE----- and what follows it"},
		{"another text", "the certificate", key, "", "certificate has no PEM in its 15 bytes, expected"},
		{"a key twice", key, key, "", "certificate is a private key in PKCS #8, expected a certificate in PEM"},
		{"a certificate twice", cert, cert, "", "the certificate's key is a certificate, expected a private key in PEM"},
		{"swapped", key, cert, "", "certificate is a private key in PKCS #8, expected a certificate in PEM"},
		{"no key", cert, "", "", "the file has no private key, expected one in it or in a file of its own"},
		{"no key, public key", cert + pemOf("PUBLIC KEY", public), "", "", "the file has no private key, expected one in it or in a file of its own"},
		{"encrypted key in the same file", cert + pemOf("ENCRYPTED PRIVATE KEY", encryptedKey(t)), "", "", "the certificate's key is encrypted, expected one that is not: openssl pkey decrypts it"},
		{"no text for a key", cert, "the key", "", "the certificate's key has no PEM in its 7 bytes, expected -----BEGIN PRIVATE KEY----- and what follows it"},
		{"two keys", cert, key + other, "", "the certificate's key is one of 2 keys in the text, expected one"},
		{"encrypted key", cert, pemOf("ENCRYPTED PRIVATE KEY", encryptedKey(t)), "", "the certificate's key is encrypted, expected one that is not: openssl pkey decrypts it"},
		{"OpenSSH key", cert, pemOf("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00")), "", "the certificate's key is an OpenSSH private key, expected PKCS #8, PKCS #1 or SEC 1"},
		{"key cut short", cert, key[:len(key)/2], "", "the certificate's key is cut short: it has 6"},
		{"key of zeros", cert, pemOf("PRIVATE KEY", make([]byte, 138)), "", "the certificate's key is not a private key in PKCS #8, PKCS #1 or SEC 1: "},
		{"a secret", cert, pemOf("SECRET", []byte("hunter22hunter22")), "", "the certificate's key is neither a key nor a certificate, expected a private key in PEM"},
		{"certificate cut short", cert[:400], key, "", "certificate is cut short: it has "},
		{"certificate of zeros", pemOf("CERTIFICATE", make([]byte, 138)), key, "", "certificate is not one in X.509: "},
		{"a secret for a certificate", pemOf("SECRET", []byte("hunter22hunter22")), key, "", "certificate is neither a key nor a certificate, expected a certificate in PEM"},
		{"PKCS #12", string(pkcs12), key, "", "certificate is a PKCS #12 file (.p12), expected PEM: openssl pkcs12 -legacy -nodes converts it (before OpenSSL 3 without -legacy)"},

		{"expired", with(func(c *x509.Certificate) { c.NotAfter = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC) }), key, "", "certificate is expired since 2025-01-02T03:04:05Z, expected one that is valid now: the clock says 20"},
		{"not yet valid", with(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Date(2125, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2126, 1, 2, 3, 4, 5, 0, time.UTC)
		}), key, "", "certificate is valid from 2125-01-02T03:04:05Z on, expected one that is valid now: the clock says 20"},
		{"another app", cert, key, "com.y.app", "certificate is for com.x.app, com.x.app.voip, expected com.y.app"},
		{"a suffix that it does not have", cert, key, "com.x.app.complication", "certificate is for com.x.app, com.x.app.voip, expected com.x.app.complication"},
		{"for development", with(development), key, "", expectedPush + `it is Apple's "Apple Development: A1B2C3D4E5"`},
		{"for a server", with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), key, "", expectedPush + "its extended key usage is not client authentication"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			if err := errors.Join(os.WriteFile(certFile, []byte(test.cert), 0o600), os.WriteFile(keyFile, []byte(test.key), 0o600)); err != nil {
				t.Fatal(err)
			}
			parsed, err := apns.ParseCertificate([]byte(test.cert), []byte(test.key), test.bundleID)
			names := certFile + " with " + keyFile
			if test.key == "" {
				keyFile, names = "", certFile
			}
			loaded, loadErr := apns.LoadCertificate(certFile, keyFile, test.bundleID)
			if err == nil || loadErr == nil || parsed.Certificate != nil || loaded.PrivateKey != nil {
				t.Fatalf("got %v and %v, want errors and no certificate", err, loadErr)
			}
			if got, want := err.Error(), "apns: "+test.want; !strings.HasPrefix(got, want) {
				t.Errorf("ParseCertificate: got %q, want %q in front", got, want)
			}
			if got, want := loadErr.Error(), "apns: "+names+": "+test.want; !strings.HasPrefix(got, want) {
				t.Errorf("LoadCertificate: got %q, want %q in front", got, want)
			}
			for _, err := range []error{err, loadErr} {
				wantNoPart(t, err, key, other, "hunter22hunter22")
			}
		})
	}
}

// A name that is a certificate or a key is not shown.
func TestCertificateLoadNoFile(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	cert, key := pemOf("CERTIFICATE", newCertificate(t, pushTemplate(), ec).Raw), pkcs8(t, ec)
	dir := t.TempDir()
	certFile := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(certFile, []byte(cert), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none.pem")
	for _, test := range []struct{ cert, key, want string }{
		{none, certFile, "apns: reading the certificate: open " + none + ": "},
		{certFile, none, "apns: reading the certificate's key: open " + none + ": "},
	} {
		_, err := apns.LoadCertificate(test.cert, test.key, "")
		if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("got %v, want %s and a match of fs.ErrNotExist", err, test.want)
		}
	}
	for _, name := range []string{key, strings.ReplaceAll(key, "\n", `\n`), strings.Split(key, "\n")[1], cert + key} {
		for _, files := range [][2]string{{certFile, name}, {name, certFile}} {
			_, err := apns.LoadCertificate(files[0], files[1], "")
			if err == nil || !strings.Contains(err.Error(), "not shown since it may be a secret") || !strings.Contains(err.Error(), "ParseCertificate takes the text itself") {
				t.Errorf("got %v, want an error that leads to ParseCertificate", err)
			}
			wantNoPart(t, err, key, cert)
		}
	}
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apns.LoadCertificate(certFile, empty, ""); err == nil || !strings.HasSuffix(err.Error(), "the certificate's key is empty, expected a private key") {
		t.Errorf("an empty file: got %v, want an error that says so", err)
	}
}

func TestInspectCertificate(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	for name, test := range map[string]struct {
		change              func(c *x509.Certificate)
		topics              []string
		sandbox, production bool
		bad                 bool // Check fails
	}{
		"both environments": {func(c *x509.Certificate) {}, []string{"com.x.app", "com.x.app.voip"}, true, true, false},
		"sandbox alone": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("Apple Development IOS Push Services", "com.x.app"), []pkix.Extension{sandbox}
		}, []string{"com.x.app"}, true, false, false},
		"production alone": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("Apple Production IOS Push Services", "com.x.app"), []pkix.Extension{production}
		}, []string{"com.x.app"}, false, true, false},
		"VoIP alone": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("VoIP Services", "com.x.app"), []pkix.Extension{extension(4, topics.Value)}
		}, []string{"com.x.app", "com.x.app.voip"}, false, false, false},
		"device management": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("APSP", "com.apple.mgmt.External.1"), []pkix.Extension{production}
		}, []string{"com.apple.mgmt.External.1"}, false, true, false},
		"Wallet pass": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("Pass Type ID", "pass.com.x.ticket"), []pkix.Extension{ofKind(16)}
		}, []string{"pass.com.x.ticket"}, false, false, false},
		"website": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("Website Push ID", "web.com.x"), []pkix.Extension{ofKind(17)}
		}, []string{"web.com.x"}, false, false, false},
		"another kind": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("iPhone Developer", "A1B2C3D4E5"), []pkix.Extension{ofKind(2)}
		}, nil, false, false, true},
		"no user ID": {func(c *x509.Certificate) { c.Subject = subject("Apple Push Services", "") }, []string{"com.x.app", "com.x.app.voip"}, true, true, false},
		"topics that are no SEQUENCE": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{production, extension(6, asn1Null)}
		}, []string{"com.x.app"}, false, true, false},
		"topics cut short": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{production, extension(6, topics.Value[:20])}
		}, []string{"com.x.app"}, false, true, false},
		"a topic with a line break": {func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{production, extension(6, []byte{0x30, 5, 0x0c, 3, 'a', '\n', 'b'})}
		}, []string{"com.x.app"}, false, true, false},
		"development": {func(c *x509.Certificate) {
			c.Subject, c.ExtraExtensions = subject("Apple Development", "A1B2C3D4E5"), nil
		}, nil, false, false, true},
		"any key usage": {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, []string{"com.x.app", "com.x.app.voip"}, true, true, false},
		"no key usage":  {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, []string{"com.x.app", "com.x.app.voip"}, true, true, false},
		"server":        {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, []string{"com.x.app", "com.x.app.voip"}, true, true, true},
	} {
		template := pushTemplate()
		test.change(template)
		cert := newCertificate(t, template, ec)
		got := apns.InspectCertificate(cert)
		if !slices.Equal(got.Topics, test.topics) || got.Sandbox != test.sandbox || got.Production != test.production {
			t.Errorf("%s: got %+v, want topics %q, sandbox %t, production %t", name, got, test.topics, test.sandbox, test.production)
		}
		if !got.NotBefore.Equal(cert.NotBefore) || !got.NotAfter.Equal(cert.NotAfter) {
			t.Errorf("%s: got %v to %v, want %v to %v", name, got.NotBefore, got.NotAfter, cert.NotBefore, cert.NotAfter)
		}
		if err := got.Check("", time.Now()); (err != nil) != test.bad {
			t.Errorf("%s: Check: got %v, want an error: %t", name, err, test.bad)
		}
		for at, bad := range map[time.Time]bool{
			cert.NotBefore.Add(-time.Second): true, cert.NotBefore: test.bad, cert.NotAfter: test.bad, cert.NotAfter.Add(time.Second): true,
		} {
			if err := got.Check("", at); (err != nil) != bad {
				t.Errorf("%s: Check at %v: got %v, want an error: %t", name, at, err, bad)
			}
		}
		for _, topic := range append(test.topics, "com.y.app") {
			if err := got.Check(topic, time.Now()); (err != nil) != (test.bad || topic == "com.y.app") {
				t.Errorf("%s: Check of %s: got %v", name, topic, err)
			}
		}
	}
	if err := apns.InspectCertificate(nil).Check("", time.Now()); err == nil {
		t.Error("no certificate: got nil, want an error")
	}
}

// A certificate that is not Apple's names an app or does not.
func TestInspectCertificateOfGateway(t *testing.T) {
	key := ecKey(t, elliptic.P256())
	for userID, want := range map[string][]string{"": nil, "com.x.app": {"com.x.app"}} {
		template := pushTemplate()
		template.SerialNumber, template.Subject, template.ExtraExtensions = big.NewInt(1), subject("gateway", userID), nil
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := apns.ParseCertificate([]byte(pemOf("CERTIFICATE", der)), []byte(pkcs8(t, key)), "")
		if err != nil {
			t.Fatalf("user ID %q: %v", userID, err)
		}
		if got := apns.InspectCertificate(cert.Leaf).Topics; !slices.Equal(got, want) {
			t.Errorf("user ID %q: got the topics %q, want %q", userID, got, want)
		}
		_, err = apns.ParseCertificate([]byte(pemOf("CERTIFICATE", der)), []byte(pkcs8(t, key)), "com.x.app")
		if text := "certificate names no app, expected com.x.app"; userID == "" && (err == nil || !strings.Contains(err.Error(), text)) || userID != "" && err != nil {
			t.Errorf("user ID %q, with a bundle ID: got %v", userID, err)
		}
	}
}

// A server takes the certificate.
func TestCertificateDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := inMemory(t, nil)
		files := server.Certificates()
		cert, err := apns.ParseCertificate(files.ClientCert, files.ClientKey, apnstest.BundleID)
		if err != nil {
			t.Fatal(err)
		}
		config := server.Config()
		config.TLS.Certificates = []tls.Certificate{cert}
		c := dial(t, apns.Production, config)
		if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
			t.Error(err)
		}
	})
}

func ExampleInspectCertificate() {
	certPEM, keyPEM := exampleCertificate()
	cert, err := apns.ParseCertificate(certPEM, keyPEM, "com.x.app")
	if err != nil {
		fmt.Println(err)
		return
	}
	info := apns.InspectCertificate(cert.Leaf)
	fmt.Println("topics:", info.Topics)
	fmt.Println("sandbox:", info.Sandbox, "production:", info.Production)
	fmt.Println("valid until:", info.NotAfter.Format(time.DateOnly))
	// Output:
	// topics: [com.x.app com.x.app.voip]
	// sandbox: true production: true
	// valid until: 2099-12-31
}

func exampleCertificate() (certPEM, keyPEM []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := pushTemplate()
	template.SerialNumber, template.NotAfter = big.NewInt(1), time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
