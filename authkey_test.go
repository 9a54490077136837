package apns_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/apns"
)

// pkcs8 returns a private key as the content of a .p8 file.
func pkcs8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

const (
	keyID  = "ABC123DEFG"
	teamID = "DEF123GHIJ"
)

func TestAuthKeyParse(t *testing.T) {
	p8 := pkcs8(t, ecKey(t, elliptic.P256()))
	for name, text := range map[string]string{
		"as it is":              p8,
		"no newline at the end": strings.TrimSpace(p8),
		"CRLF":                  strings.ReplaceAll(p8, "\n", "\r\n"),
		"text before it":        "Key ID: ABC123DEFG\n" + p8,
		"garbage after it":      p8 + "\x00\n-----BEGIN CERT",
	} {
		t.Run(name, func(t *testing.T) {
			k, err := apns.ParseAuthKey([]byte(text), keyID, teamID)
			if err != nil {
				t.Fatalf("ParseAuthKey: %v", err)
			}
			if got, want := k.String(), "auth key ABC123DEFG of team DEF123GHIJ"; got != want {
				t.Errorf("String: got %q, want %q", got, want)
			}
			file := filepath.Join(t.TempDir(), "AuthKey_ABC123DEFG.p8")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := apns.LoadAuthKey(file, keyID, teamID); err != nil {
				t.Errorf("LoadAuthKey: %v", err)
			}
		})
	}
}

// Each error says what came and what was expected, and shows nothing of the key.
func TestAuthKeyMalformed(t *testing.T) {
	ec := ecKey(t, elliptic.P256())
	p8 := pkcs8(t, ec)
	der, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, pem, keyID, teamID string
		want                     []string
	}{
		{"empty", "", keyID, teamID, []string{"no PEM block in its 0 bytes", "-----BEGIN PRIVATE KEY-----"}},
		{"DER", string(der), keyID, teamID, []string{"no PEM block"}},
		{"cut short", p8[:len(p8)/2], keyID, teamID, []string{"no PEM block"}},
		{"one line", strings.ReplaceAll(p8, "\n", `\n`), keyID, teamID, []string{"no PEM block"}},
		{"SEC 1", block("EC PRIVATE KEY"), keyID, teamID, []string{`type "EC PRIVATE KEY", expected PRIVATE KEY`}},
		{"certificate", block("CERTIFICATE"), keyID, teamID, []string{`type "CERTIFICATE", expected PRIVATE KEY`}},
		{"encrypted", block("ENCRYPTED PRIVATE KEY"), keyID, teamID, []string{"is encrypted, expected", "PRIVATE KEY"}},
		{"SEC 1 under the wrong name", block("PRIVATE KEY"), keyID, teamID, []string{"not a private key in PKCS#8"}},
		{"RSA", pkcs8(t, rsaKey), keyID, teamID, []string{"*rsa.PrivateKey, expected an ECDSA key on the curve P-256"}},
		{"Ed25519", pkcs8(t, edKey), keyID, teamID, []string{"ed25519.PrivateKey, expected an ECDSA key on the curve P-256"}},
		{"P-384", pkcs8(t, ecKey(t, elliptic.P384())), keyID, teamID, []string{"curve P-384, expected P-256"}},

		{"no key ID", p8, "", teamID, []string{"key ID has a length of 0, expected 10"}},
		{"short key ID", p8, "ABC123DEF", teamID, []string{"key ID has a length of 9, expected 10"}},
		{"long team ID", p8, keyID, "DEF123GHIJK", []string{"team ID has a length of 11, expected 10"}},
		{"key ID with a space", p8, "ABC123DEF ", teamID, []string{`key ID has ' ' at index 9, expected only letters and digits`}},
		{"team ID with a quote", p8, keyID, `DEF"23GHIJ`, []string{`team ID has '"' at index 3`}},
		{"team ID beyond ASCII", p8, keyID, "DEF123GHÄ", []string{`team ID has 'Ä' at index 8`}},
		{"key and key ID swapped", keyID, p8, teamID, []string{"key ID has a length of"}},
		{"key and team ID swapped", teamID, keyID, p8, []string{"team ID has a length of"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "AuthKey.p8")
			if err := os.WriteFile(file, []byte(test.pem), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := apns.ParseAuthKey([]byte(test.pem), test.keyID, test.teamID)
			loaded, loadErr := apns.LoadAuthKey(file, test.keyID, test.teamID)
			if k != nil || loaded != nil || err == nil || loadErr == nil {
				t.Fatalf("got (%v, %v) and (%v, %v), want errors", k, err, loaded, loadErr)
			}
			if got := loadErr.Error(); !strings.HasPrefix(got, "apns: "+file+": ") {
				t.Errorf("LoadAuthKey: got %q, want the name of the file in front", got)
			}
			for _, err := range []error{err, loadErr} {
				got := err.Error()
				if !strings.HasPrefix(got, "apns: ") || strings.Count(got, "apns: ") != 1 {
					t.Errorf("got %q, want one \"apns: \" in front", got)
				}
				for _, want := range test.want {
					if !strings.Contains(got, want) {
						t.Errorf("got %q, want %q in it", got, want)
					}
				}
				for text := range strings.Lines(test.pem + p8) {
					if text = strings.TrimSpace(text); !strings.HasPrefix(text, "-----") && len(text) > 12 && strings.Contains(got, text[:12]) {
						t.Errorf("got %q, which shows the key", got)
					}
				}
				if strings.Contains(got, hex.EncodeToString(der[7:15])) {
					t.Errorf("got %q, which shows the key", got)
				}
			}
		})
	}
}

func TestAuthKeyLoadNoFile(t *testing.T) {
	_, err := apns.LoadAuthKey(filepath.Join(t.TempDir(), "AuthKey.p8"), keyID, teamID)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "apns: ") {
		t.Errorf("got %v, want an error of this package that matches fs.ErrNotExist", err)
	}
	p8 := pkcs8(t, ecKey(t, elliptic.P256()))
	_, err = apns.LoadAuthKey(p8, keyID, teamID)
	if err == nil || !strings.Contains(err.Error(), "ParseAuthKey takes the key itself") || strings.Contains(err.Error(), p8[30:50]) {
		t.Errorf("the key in place of the file's name: got %v, want an error that leads to ParseAuthKey and does not show the key", err)
	}
}
