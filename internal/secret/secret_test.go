package secret_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/apns/internal/secret"
)

func TestFileError(t *testing.T) {
	hex := strings.Repeat("c0ffee00", 8)
	for name, hidden := range map[string]bool{
		"":                      false,
		"AuthKey_ABC123DEFG.p8": false,
		"/etc/apns/key":         false,
		"/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/TestPush123/001/AuthKey_ABC123DEFG.p8": false,
		`C:\Users\me\Documents\new\AuthKey_ABC123DEFG.p8`:                                        false,
		hex:                          true,
		hex + ".txt":                 true,
		"<" + hex[:20] + ">":         true,
		`{"aps":{"alert":"a.b"}}`:    true,
		"-----BEGIN PRIVATE KEY----": true,
		"a\nb":                       true,
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
	other := errors.New(hex)
	if got := secret.FileError(other); got != other {
		t.Errorf("got %v, want the same error", got)
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
