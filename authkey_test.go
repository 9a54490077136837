package apns_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// What becomes of a .p8 file in an environment variable, a form or an editor.
func TestAuthKeyParse(t *testing.T) {
	p8 := pkcs8(t, ecKey(t, elliptic.P256()))
	block, _ := pem.Decode([]byte(p8))
	lines := strings.Split(strings.TrimSpace(p8), "\n")
	inside := lines[1 : len(lines)-1]
	inner := strings.Join(inside, "")
	utf16 := func(order binary.AppendByteOrder) string {
		b := order.AppendUint16(nil, 0xfeff)
		for _, r := range p8 {
			b = order.AppendUint16(b, uint16(r))
		}
		return string(b)
	}
	for name, text := range map[string]string{
		"as it is":                  p8,
		"no newline at the end":     strings.TrimSpace(p8),
		"CRLF":                      strings.ReplaceAll(p8, "\n", "\r\n"),
		"CR":                        strings.ReplaceAll(p8, "\n", "\r"),
		"backslash and n":           strings.ReplaceAll(p8, "\n", `\n`),
		"backslashes, r and n":      strings.ReplaceAll(p8, "\n", `\r\n`),
		"two backslashes and n":     strings.ReplaceAll(p8, "\n", `\\n`),
		"backslash at the end":      strings.ReplaceAll(p8, "\n", "\\\n"),
		"double quotes":             `"` + p8 + `"`,
		"quotes and backslash n":    `'` + strings.ReplaceAll(p8, "\n", `\n`) + `'`,
		"a string for each line":    `"` + strings.ReplaceAll(strings.TrimSpace(p8), "\n", "\",\n\"") + `"`,
		"byte order mark":           "\ufeff" + p8,
		"UTF-16, little endian":     utf16(binary.LittleEndian),
		"UTF-16, big endian":        utf16(binary.BigEndian),
		"indentation":               "  " + strings.ReplaceAll(p8, "\n", "\n  "),
		"tabs":                      "\t" + strings.ReplaceAll(p8, "\n", "\n\t"),
		"no-break spaces":           strings.ReplaceAll(p8, "\n", "\n\u00a0"),
		"empty lines":               strings.ReplaceAll(p8, "\n", "\n\n"),
		"spaces for line breaks":    strings.ReplaceAll(p8, "\n", " "),
		"no line breaks":            strings.ReplaceAll(p8, "\n", ""),
		"no white space":            strings.NewReplacer("\n", "", " ", "").Replace(p8),
		"no END line":               strings.Join(lines[:len(lines)-1], "\n"),
		"half an END line":          strings.Join(lines[:len(lines)-1], "\n") + "\n-----EN",
		"no BEGIN line":             strings.Join(lines[1:], "\n"),
		"half a BEGIN line":         strings.TrimPrefix(p8, "-----BEG"),
		"a dash less":               p8[1 : len(strings.TrimSpace(p8))-1],
		"base64 alone":              strings.Join(inside, "\n"),
		"base64 alone, one line":    inner,
		"base64 alone, quotes":      `"` + inner + `"`,
		"base64 without padding":    strings.TrimRight(inner, "="),
		"base64 of the file":        base64.StdEncoding.EncodeToString([]byte(p8)),
		"base64 of CRLF, in lines":  strings.ReplaceAll(base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(p8, "\n", "\r\n"))), "L", "L\n"),
		"base64 of base64":          base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY-----" + inner)),
		"DER":                       string(block.Bytes),
		"text before it":            "Key ID: ABC123DEFG\n" + p8,
		"text with dashes before":   "-- Key-ID: ABC123DEFG --\n" + p8,
		"text after it":             p8 + "Keep it -- safe\n",
		"garbage after it":          p8 + "\x00\n-----BEGIN CERT",
		"another name in the lines": strings.ReplaceAll(p8, " PRIVATE ", " "),
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
			// The key itself in place of the file's name. A name cannot have a zero byte.
			_, err = apns.LoadAuthKey(text, keyID, teamID)
			if err == nil || !strings.Contains(err.Error(), "ParseAuthKey takes the text itself") {
				t.Errorf("the key in place of the file's name: got %v, want an error that leads to ParseAuthKey", err)
			}
			wantNoPart(t, err, text, p8)
		})
	}
}

// wantNoPart checks that an error shows no part of the secrets: of 8 characters or more, in
// a row, that are not white space or of a BEGIN line.
func wantNoPart(t *testing.T, err error, secrets ...string) {
	t.Helper()
	if err == nil {
		return
	}
	for _, secret := range secrets {
		secret = strings.NewReplacer("PRIVATE KEY", "", "CERTIFICATE", "", "BEGIN", "", "Proc-Type: 4,ENCRYPTED", "", "-", "").Replace(secret)
		for i := range len(secret) - 8 {
			if part := secret[i : i+8]; !strings.ContainsAny(part, " \n") && strings.Contains(err.Error(), part) {
				t.Errorf("got %q, which shows %q of a secret", err, part)
				return
			}
		}
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
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))
	public, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	sec1P384, err := x509.MarshalECPrivateKey(ecKey(t, elliptic.P384()))
	if err != nil {
		t.Fatal(err)
	}
	p8DER, _ := pem.Decode([]byte(p8))
	encrypted := encryptedKey(t)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	inner := base64.StdEncoding.EncodeToString(p8DER.Bytes)
	lines := strings.SplitAfter(p8, "\n")
	const expected = "expected an ECDSA key on the curve P-256 in PKCS #8"
	for _, test := range []struct {
		name, pem, keyID, teamID string
		want                     []string
	}{
		{"empty", "", keyID, teamID, []string{"auth key has no key in its 0 bytes, expected -----BEGIN PRIVATE KEY-----"}},
		{"BEGIN line alone", lines[0], keyID, teamID, []string{"has no key in its 28 bytes"}},
		{"BEGIN and END alone", lines[0] + lines[len(lines)-2], keyID, teamID, []string{"has no key in its"}},
		{"another text", "This is not the file that you are looking for.", keyID, teamID, []string{"has no key in its 46 bytes"}},
		{"no text", "\x00\x01\x02\xff", keyID, teamID, []string{"has no key in its 4 bytes"}},
		{"cut short", p8[:len(p8)/2], keyID, teamID, []string{"auth key is cut short: it has ", " of 138 bytes, " + expected}},
		{"cut short in a digit of four", lines[0] + lines[1][:61], keyID, teamID, []string{"is cut short: it has 61 digits of base64"}},
		{"a line is missing", lines[0] + lines[1] + strings.Join(lines[3:], ""), keyID, teamID, []string{"is cut short: it has 90 of 138 bytes"}},
		{"base64 cut short", inner[:100], keyID, teamID, []string{"is cut short: it has 75 of 138 bytes"}},
		{"DER cut short", string(p8DER.Bytes[:100]), keyID, teamID, []string{"is cut short: it has 100 of 138 bytes"}},
		{"too long", pemOf("PRIVATE KEY", append(p8DER.Bytes[:len(p8DER.Bytes):len(p8DER.Bytes)], 1, 2)), keyID, teamID, []string{"has 2 bytes after its end"}},
		{"a character that is not base64, inside", lines[0] + "*" + strings.Join(lines[1:], ""), keyID, teamID, []string{"has '*' in its text, which base64 does not have"}},
		{"zeros", pemOf("PRIVATE KEY", make([]byte, 138)), keyID, teamID, []string{"is not a private key in PKCS #8"}},
		{"an unknown type", pemOf("SECRET", make([]byte, 138)), keyID, teamID, []string{"is neither a key nor a certificate, " + expected}},
		{"two keys", p8 + p8, keyID, teamID, []string{"has 2 keys or certificates in its text, expected one"}},
		{"two keys, one END line", strings.Join(lines[:len(lines)-2], "") + p8, keyID, teamID, []string{"has 2 keys or certificates in its text, expected one"}},
		{"a key and its certificate", p8 + pemOf("CERTIFICATE", der), keyID, teamID, []string{"has 2 keys or certificates in its text, expected one"}},

		{"SEC 1", block("EC PRIVATE KEY"), keyID, teamID, []string{"is an EC private key in SEC 1, " + expected, "openssl pkcs8 -topk8 -nocrypt converts it"}},
		{"SEC 1, P-384", pemOf("EC PRIVATE KEY", sec1P384), keyID, teamID, []string{"is an EC private key in SEC 1, " + expected}},
		{"SEC 1 in DER", string(der), keyID, teamID, []string{"is an EC private key in SEC 1, " + expected}},
		{"SEC 1 under the wrong name", block("PRIVATE KEY"), keyID, teamID, []string{"is an EC private key in SEC 1, " + expected}},
		{"certificate", block("CERTIFICATE"), keyID, teamID, []string{"is a certificate, " + expected}},
		{"public key", pemOf("PUBLIC KEY", public), keyID, teamID, []string{"is a public key, " + expected}},
		{"public key, base64", base64.StdEncoding.EncodeToString(public), keyID, teamID, []string{"is a public key, " + expected}},
		{"encrypted", pemOf("ENCRYPTED PRIVATE KEY", encrypted), keyID, teamID, []string{"is encrypted, " + expected, "openssl pkcs8 decrypts it"}},
		{"encrypted, base64", base64.StdEncoding.EncodeToString(encrypted), keyID, teamID, []string{"is encrypted, " + expected}},
		{"encrypted as of old", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,0123456789ABCDEF\n\n" + inner + "\n-----END RSA PRIVATE KEY-----\n", keyID, teamID, []string{"is encrypted, " + expected}},
		{"OpenSSH", pemOf("OPENSSH PRIVATE KEY", []byte("openssh-key-v1\x00and more")), keyID, teamID, []string{"is an OpenSSH private key, " + expected}},
		{"PKCS #12", string(pkcs12), keyID, teamID, []string{"is a PKCS #12 file (.p12), " + expected}},
		{"RSA", pkcs8(t, rsaKey), keyID, teamID, []string{"is an RSA key, " + expected}},
		{"RSA in PKCS #1", pkcs1, keyID, teamID, []string{"is an RSA private key in PKCS #1, " + expected}},
		{"Ed25519", pkcs8(t, edKey), keyID, teamID, []string{"is an Ed25519 key, " + expected}},
		{"X25519", pkcs8(t, x25519), keyID, teamID, []string{"is an X25519 key, " + expected}},
		{"P-384", pkcs8(t, ecKey(t, elliptic.P384())), keyID, teamID, []string{"is an ECDSA key on the curve P-384, " + expected}},

		{"no key ID", p8, "", teamID, []string{"key ID has a length of 0, expected 10 digits and capital letters"}},
		{"short key ID", p8, "ABC123DEF", teamID, []string{"key ID has a length of 9, expected 10"}},
		{"long team ID", p8, keyID, "DEF123GHIJK", []string{"team ID has a length of 11, expected 10"}},
		{"key ID with a space", p8, "ABC123DEF ", teamID, []string{`key ID has ' ' at index 9, expected only digits and capital letters`}},
		{"key ID in lower case", p8, "abc123defg", teamID, []string{`key ID has 'a' at index 0, expected only digits and capital letters`}},
		{"team ID with a quote", p8, keyID, `DEF"23GHIJ`, []string{`team ID has '"' at index 3`}},
		{"team ID beyond ASCII", p8, keyID, "DEF123GHÄ", []string{`team ID has 'Ä' at index 8`}},
		{"the same ID twice", p8, keyID, keyID, []string{"key ID and team ID are both ABC123DEFG, expected two different IDs"}},
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
				if test.name == "SEC 1, P-384" && strings.Contains(got, "openssl") {
					t.Errorf("got %q, want no hint: openssl cannot convert to another curve", got)
				}
				if !strings.HasPrefix(got, "apns: ") || strings.Count(got, "apns: ") != 1 {
					t.Errorf("got %q, want one \"apns: \" in front", got)
				}
				for _, want := range test.want {
					if !strings.Contains(got, want) {
						t.Errorf("got %q, want %q in it", got, want)
					}
				}
				wantNoPart(t, err, strings.ReplaceAll(test.pem, "that you are", ""), p8, hex.EncodeToString(der))
			}
		})
	}
}

// pkcs12 is the beginning of a .p12 file: RFC 7292, section 4.
var pkcs12 = []byte{
	0x30, 0x14, // SEQUENCE
	0x02, 0x01, 0x03, // version 3
	0x30, 0x0f, // SEQUENCE
	0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01, // 1.2.840.113549.1.7.1, data
	0xa0, 0x02, 0x04, 0x00, // [0], an empty OCTET STRING
}

// encryptedKey returns what looks like an encrypted key in PKCS #8: RFC 5958, section 3.
func encryptedKey(t *testing.T) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}{
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}}, // PBES2
		make([]byte, 144),
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// The key ID in the name of the file, which Apple gives it.
func TestAuthKeyFileName(t *testing.T) {
	p8 := pkcs8(t, ecKey(t, elliptic.P256()))
	for name, want := range map[string]string{
		"AuthKey_ABC123DEFG.p8":     "",
		"AuthKey_ABC123DEFG (1).p8": "",
		"AuthKey_ABC123DEFG":        "",
		"key.p8":                    "",
		"AuthKey_production.p8":     "", // in lower case
		"AuthKey_PRODUCTION1.p8":    "", // 11 characters
		"AuthKey_PROD.p8":           "",
		"AuthKey_.p8":               "",
		"ZZZ123DEFG.p8":             "",
		"AuthKey_DEF123GHIJ.p8":     "key ID is ABC123DEFG and team ID is DEF123GHIJ, expected them the other way around: the file's name has the key ID DEF123GHIJ",
		"AuthKey_ZZZ123DEFG.p8":     "key ID is ABC123DEFG, expected ZZZ123DEFG as in the file's name: correct the ID, or rename the file",
		"AuthKey_ZZZ123DEFG-1.p8":   "key ID is ABC123DEFG, expected ZZZ123DEFG as in the file's name: correct the ID, or rename the file",
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(p8), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := apns.LoadAuthKey(file, keyID, teamID)
		switch {
		case want == "" && (err != nil || k == nil):
			t.Errorf("%s: got %v, %v; want a key", name, k, err)
		case want != "" && (err == nil || k != nil || err.Error() != "apns: "+file+": "+want):
			t.Errorf("%s: got %v, %v; want %s", name, k, err, want)
		}
	}
}

func TestAuthKeyLoadNoFile(t *testing.T) {
	_, err := apns.LoadAuthKey(filepath.Join(t.TempDir(), "AuthKey.p8"), keyID, teamID)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "apns: ") {
		t.Errorf("got %v, want an error of this package that matches fs.ErrNotExist", err)
	}
	// A key, or a part of it, in place of the file's name. TestAuthKeyParse has the rest.
	p8 := pkcs8(t, ecKey(t, elliptic.P256()))
	lines := strings.Split(p8, "\n")
	for name, text := range map[string]string{
		"first line":     lines[1],
		"second line":    lines[2],
		"third line":     strings.Repeat(lines[3], 2),
		"with a comment": "com.example.app " + lines[1],
		"hexadecimal":    hex.EncodeToString([]byte(lines[1])),
	} {
		_, err := apns.LoadAuthKey(text, keyID, teamID)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not shown since it may be a secret") {
			t.Errorf("%s: got %v, want an error that does not show the name and matches fs.ErrNotExist", name, err)
		}
		wantNoPart(t, err, text, p8)
	}
}

// No text makes the parsers panic, and an error shows at most a character of it. What is
// accepted is a key that signs.
func FuzzParseAuthKey(f *testing.F) {
	const p8 = "-----BEGIN PRIVATE KEY-----\n" +
		"MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg7S8j0D3mWWTpYZXZ\n" +
		"-----END PRIVATE KEY-----\n"
	f.Add([]byte(p8))
	f.Add([]byte(strings.ReplaceAll(p8, "\n", `\n`)))
	f.Add([]byte(base64.StdEncoding.EncodeToString([]byte(p8))))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n"))
	f.Add(slices.Concat([]byte{0xff, 0xfe}, []byte("-\x00-\x00B\x00E\x00G\x00I\x00N\x00")))
	f.Add(pkcs12)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := apns.ParseAuthKey(text, keyID, teamID)
		if (k == nil) == (err == nil) {
			t.Fatalf("got %v and %v", k, err)
		}
		_, certErr := apns.ParseCertificate(text, nil, "")
		for _, err := range []error{err, certErr} {
			if err == nil {
				continue
			}
			for word := range strings.FieldsSeq(err.Error()) {
				if len(word) >= 20 && bytes.Contains(text, []byte(word)) {
					t.Errorf("got %q, which shows %q of the text", err, word)
				}
			}
		}
	})
}
