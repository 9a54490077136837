package secret_test

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/secret"
)

func TestFileError(t *testing.T) {
	token := strings.Repeat("c0ffee00", 8)
	for name, hidden := range map[string]bool{
		"":                      false,
		"AuthKey_ABC123DEFG.p8": false,
		"/etc/apns/key":         false,
		"/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/TestPush123/001/AuthKey_ABC123DEFG.p8": false,
		`C:\Users\me\Documents\new\AuthKey_ABC123DEFG.p8`:                                        false,
		// Long names that hold nothing else.
		"/home/me/projects/notifications/production/secrets/apnskey":                 false,
		"/Users/me/Documents/keys/AuthKeyOfProduction":                               false,
		"/Users/Me/Library/Application Support/Push Service/Keys/AuthKey ABC123DEFG": false,
		"/tmp/TestCertificateLoadNoFile1233388853/001/none.pem":                      false,
		"/run/secrets/apns-auth-key-of-the-production-environment":                   false,
		"AuthKey_ABC123DEFG-production-environment-of-the-shop.p8":                   false,
		"keys/apple_push_notification_service_production_2026.PEM":                   false,
		"aps-certificate-for-com-example-app-in-production.cer":                      false,
		"apns-auth-key-of-the-production-environment":                                true, // neither absolute nor with the extension

		token:                         true,
		token + ".txt":                true,
		token + ".p8":                 true,
		"/" + token:                   true,
		"/etc/apns/" + token + ".pem": true,
		"<" + token[:20] + ">":        true,
		`{"aps":{"alert":"a.b"}}`:     true,
		"-----BEGIN PRIVATE KEY----":  true,
		"a\nb":                        true,
		// A key may have a slash early, and none after it.
		"MIGTAgEAMB/MGByqGSM49AgEGCCqGSM49AwEHBHkwdwIB": true,
		// A provider token has dots.
		"eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.eyJpc3MiOiJERUYxMjNHSElKIn0.x": true,
	} {
		err := secret.FileError(&fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: got %v, want an error that matches fs.ErrNotExist", name, err)
		}
		if got := strings.Contains(err.Error(), "not shown"); got != hidden {
			t.Errorf("%q: got %v, hidden is %t, want %t", name, err, got, hidden)
		}
		pathErr, ok := errors.AsType[*fs.PathError](err)
		if hidden && (!ok || strings.Contains(pathErr.Path, name) || strings.Contains(err.Error(), name)) {
			t.Errorf("%q: got %v, which shows the name", name, err)
		}
	}
	_, err := os.ReadFile(filepath.Join(t.TempDir(), "none"))
	if got := secret.FileError(err); got != err {
		t.Errorf("got %v, want the same error", got)
	}
	other := errors.New(token)
	if got := secret.FileError(other); got != other {
		t.Errorf("got %v, want the same error", got)
	}
}

// A private key in base64 is never shown, although base64 has the slashes of a path, and may
// begin with one: as it is, with the spaces or the \n of an environment variable, or a part of
// it. PKCS #8 begins with the same bytes in each key; what follows is random.
func TestFileErrorOfKeys(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pkcs8, err := hex.DecodeString("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420")
	if err != nil {
		t.Fatal(err)
	}
	wantHidden := func(name string) {
		t.Helper()
		err := secret.FileError(&fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist})
		if strings.Contains(err.Error(), name) {
			t.Fatalf("got %v, which shows a key", err)
		}
	}
	for range 4_000 {
		key := make([]byte, 32+random.IntN(140))
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		url := base64.RawURLEncoding.EncodeToString(key)
		wantHidden(url)
		wantHidden(url + ".p8")
		for _, text := range []string{
			base64.StdEncoding.EncodeToString(key),
			base64.StdEncoding.EncodeToString(append(pkcs8, key...)),
		} {
			wantHidden(text)
			wantHidden(text + ".p8")
			wantHidden("/" + text)
			// The worst case: no word between the slashes is long.
			digits := []byte(text)
			for i := 0; i < len(digits); i += 20 + random.IntN(20) {
				digits[i] = '/'
			}
			wantHidden(string(digits))
			wantHidden(string(digits) + ".pem")
			for _, lineBreak := range []string{" ", `\n`, `\r\n`, "' '", "\n"} {
				wantHidden(strings.Join(slices.Collect(chunks(string(digits), 32)), lineBreak))
			}
			// What is left of a text that begins at one of its slashes.
			for i, c := range digits[:len(digits)-43] {
				if c == '/' {
					wantHidden(string(digits[i:]))
				}
			}
		}
	}
}

// chunks yields the lines of a text, with n bytes each.
func chunks(s string, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(s) > n && yield(s[:n]) {
			s = s[n:]
		}
		yield(s)
	}
}

func TestExcerpt(t *testing.T) {
	const token = "00c0ffee00112233445566778899aabb"
	for _, test := range []struct {
		said    string
		limit   int
		secrets []string
		want    string
	}{
		{"", 10, []string{token}, ""},
		{"bad gateway", 100, []string{token, ""}, "bad gateway"},
		{"bad gateway", 3, nil, "bad"},
		{"no " + token + " here", 100, []string{token}, "no … here"},
		{"no " + token + " and " + token[:8], 100, []string{token}, "no … and …"},
		{"no " + token[:7], 100, []string{token}, "no 00c0ffe"},
		// Cut in the middle of it.
		{"no " + token, 7, []string{token}, "no …"},
		{"Basic " + "cGFzcw==", 100, []string{"pass", "cGFzcw=="}, "Basic …"},
		{"user pass", 100, []string{"pass"}, "user …"},
		{"Forbidden", 100, []string{"o", "bid"}, "Forbidden"},
		{token, 100, []string{token}, "…"},
		{"no " + strings.ToUpper(token) + " here", 100, []string{token}, "no … here"},
		{"no " + token + " here", 100, []string{strings.ToUpper(token)}, "no … here"},
		{"\xffİ" + strings.ToUpper(token), 100, []string{token}, "\xffİ…"}, // bytes keep their place
		{"a" + "payload1" + "b", 100, []string{"xxpayload1yy"}, "a…b"},
	} {
		if got := secret.Excerpt(test.said, test.limit, test.secrets...); got != test.want {
			t.Errorf("%q, %d, %q: got %q, want %q", test.said, test.limit, test.secrets, got, test.want)
		}
	}
}

func TestHideTokens(t *testing.T) {
	token := strings.Repeat("c0ffee00", 8)
	jwt := "eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.eyJpc3MiOiJERUYxMjNHSElKIn0.x_-x"
	for said, want := range map[string]string{
		"": "",
		"max_concurrent_streams_exceeded_by_client": "max_concurrent_streams_exceeded_by_client",
		`{"reason":"Shutdown"}`:                     `{"reason":"Shutdown"}`,
		"POST /3/device/" + token + " (too many)":   "POST /3/device/… (too many)",
		token + " and " + token:                     "… and …",
		`"` + strings.ToUpper(token) + `"`:          `"…"`,
		"authorization: bearer " + jwt + "\n.":      "authorization: bearer …\n.",
		"ééé" + token + "ééé":                       "ééé…ééé",
	} {
		if got := secret.HideTokens(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}
