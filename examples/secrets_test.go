package examples_test

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"

	"example.com/apns/apnstest"
)

// A key, a token or a payload in the place of a file's name, or of another argument, is not
// shown: what a program prints ends up in logs.
func TestSecretsInArguments(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	certs := s.Certificates()
	cert, key, ca, p8 := files(t, s)
	base64Of := func(pem []byte) string {
		lines := strings.Split(strings.TrimSpace(string(pem)), "\n")
		return strings.Join(lines[1:len(lines)-1], "")
	}
	ids := []string{"-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, "-bundle-id", apnstest.BundleID}
	h2 := append([]string{"-addr", s.HTTP2Addr, "-ca", ca, "-p8", p8}, ids...)
	const object = `{"aps":{"alert":"secret-text"}}`
	dir := t.TempDir()
	for name, test := range map[string]struct {
		program string
		args    []string
	}{
		"p8 is PEM":                 {"push", append([]string{"-p8", string(certs.AuthKey), token, "1", "Hi"}, ids...)},
		"p8 is base64":              {"push", append([]string{"-p8", base64Of(certs.AuthKey)}, append(ids, token, "1", "Hi")...)},
		"p8 is base64 of PEM":       {"push", append([]string{"-p8", base64.StdEncoding.EncodeToString(certs.AuthKey)}, append(ids, token, "1", "Hi")...)},
		"p8 with backslash n":       {"push", append([]string{"-p8", strings.ReplaceAll(string(certs.AuthKey), "\n", `\n`)}, append(ids, token, "1", "Hi")...)},
		"p8 on one line":            {"push", append([]string{"-p8", strings.ReplaceAll(string(certs.AuthKey), "\n", " ")}, append(ids, token, "1", "Hi")...)},
		"p8 is a line":              {"push", append([]string{"-p8", base64Of(certs.AuthKey)[:64]}, append(ids, token, "1", "Hi")...)},
		"p8 of prune":               {"prune", append([]string{"-probe", "-tokens", ca, "-p8", base64Of(certs.AuthKey)}, ids...)},
		"key ID is the key":         {"push", []string{"-p8", p8, "-key-id", base64Of(certs.AuthKey), "-team-id", apnstest.TeamID, "-bundle-id", "t", token, "1", "Hi"}},
		"team ID is the key":        {"push", []string{"-p8", p8, "-team-id", base64Of(certs.AuthKey), "-key-id", apnstest.KeyID, "-bundle-id", "t", token, "1", "Hi"}},
		"key is PEM":                {"push", []string{"-cert", cert, "-key", string(certs.ClientKey), token, "1", "Hi"}},
		"key is base64":             {"push", []string{"-cert", cert, "-key", base64Of(certs.ClientKey), token, "1", "Hi"}},
		"cert is the key":           {"push", []string{"-cert", string(certs.ClientKey), "-key", key, token, "1", "Hi"}},
		"key in front is PEM":       {"push", []string{cert, string(certs.ClientKey), token, "1", "Hi"}},
		"key of prune":              {"prune", []string{"-addr", s.FeedbackAddr, "-cert", cert, "-key", base64Of(certs.ClientKey)}},
		"key of prune, no cert":     {"prune", []string{"-addr", s.FeedbackAddr, "-key", base64Of(certs.ClientKey)}},
		"key of prune, in front":    {"prune", []string{"-addr", s.FeedbackAddr, cert, string(certs.ClientKey)}},
		"CA is the key":             {"push", []string{"-cert", cert, "-key", key, "-ca", base64Of(certs.ClientKey), token, "1", "Hi"}},
		"CA of prune is the key":    {"prune", []string{"-addr", s.FeedbackAddr, "-cert", cert, "-key", key, "-ca", string(certs.ClientKey)}},
		"payload is JSON":           {"push", append(h2, "-payload", object, token)},
		"tokens is a token":         {"push", append(h2, "-tokens", token, "Hi")},
		"tokens of prune":           {"prune", append([]string{"-probe", "-tokens", token}, h2...)},
		"retry file in a token":     {"push", append(h2, "-tokens", ca, "-retry-file", filepath.Join(dir, "none", token), "Hi")},
		"ID and token swapped":      {"push", append(h2, "1", token, "Hi")},
		"ID and text swapped":       {"push", append(h2, token, "secret-text", "1")},
		"-id is a token":            {"push", append(h2, "-id", token, token, "Hi")},
		"accepted file is a token":  {"push", append(h2, "-tokens", ca, "-accepted-file", filepath.Join(dir, "none", token), "Hi")},
		"doctor, p8 is base64":      {"doctor", append([]string{"-p8", base64Of(certs.AuthKey)}, ids...)},
		"doctor, key is PEM":        {"doctor", []string{"-cert", cert, "-key", string(certs.ClientKey)}},
		"build, ID and token":       {"build", []string{"1", token, "Hi"}},
		"build, ID and text":        {"build", []string{token, "secret-text", "1"}},
		"token with < and >":        {"push", append(h2, "<"+token+">", "1", "Hi")},
		"JSON, text for a token":    {"push", append(h2, "-json", "secret-text", "Hi")},
		"JSON, no p8":               {"push", append(h2, "-json", "-p8", "/nonexistent", "secret-text", "Hi")},
		"build, token with < and >": {"build", []string{"<" + token + ">", "1", "Hi"}},

		// In the place of a flag, and of the value of a flag that has none.
		"push, PEM first":         {"push", []string{string(certs.AuthKey), token, "Hi"}},
		"push, PEM on one line":   {"push", []string{strings.ReplaceAll(string(certs.AuthKey), "\n", " "), token, "Hi"}},
		"push, PEM after a flag":  {"push", []string{"-local", string(certs.ClientKey), token, "Hi"}},
		"prune, PEM first":        {"prune", []string{string(certs.ClientKey), cert}},
		"doctor, PEM first":       {"doctor", []string{string(certs.ClientKey)}},
		"build, PEM first":        {"build", []string{string(certs.ClientKey), "1", "Hi"}},
		"local, PEM first":        {"local", []string{string(certs.ClientKey)}},
		"push, - and base64":      {"push", []string{"-" + base64Of(certs.AuthKey), token, "Hi"}},
		"push, - and a token":     {"push", []string{"-" + token, "Hi"}},
		"push, -= and a token":    {"push", []string{"-=" + token, "Hi"}},
		"push, --- and a token":   {"push", []string{"---x=" + token, "Hi"}},
		"push, -local=token":      {"push", []string{"-local=" + token, "Hi"}},
		"push, -priority token":   {"push", []string{"-local", "-priority", token, "Hi"}},
		"push, -expiry token":     {"push", []string{"-local", "-expiry", token, "Hi"}},
		"push, -protocol token":   {"push", []string{"-local", "-protocol", token, "Hi"}},
		"push, -addr token":       {"push", append(h2, "-addr", token, token, "Hi")},
		"doctor, -addr token":     {"doctor", []string{"-cert", cert, "-key", key, "-addr", token}},
		"prune, -addr token":      {"prune", []string{"-cert", cert, "-key", key, "-addr", token}},
		"push, -addr PEM":         {"push", append(h2, "-addr", string(certs.AuthKey), token, "Hi")},
		"push, -type token":       {"push", append(h2, "-type", token, token, "Hi")},
		"push, -collapse-id key":  {"push", append(h2, "-collapse-id", base64Of(certs.AuthKey), token, "Hi")},
		"build, -priority token":  {"build", []string{"-priority", token, "1", "Hi"}},
		"build, -expiry token":    {"build", []string{"-expiry", token, "1", "Hi"}},
		"local, -keep token":      {"local", []string{"-keep", token}},
		"local, -http2 token":     {"local", []string{"-http2", token}},
		"local, -page-addr token": {"local", []string{"-page-addr", token}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := run(t, nil, test.program, test.args...)
			if status == 0 || stdout+stderr == "" {
				t.Errorf("got %q, %q, %d; want an error", stdout, stderr, status)
			}
			if status == 2 && strings.Count(stderr, "\n") != 1 {
				t.Errorf("got %q, want one line", stderr)
			}
			secrets := []string{"secret-text", token, base64Of(certs.AuthKey), base64Of(certs.ClientKey), base64.StdEncoding.EncodeToString(certs.AuthKey)}
			for _, secret := range secrets {
				for i := range len(secret) - 9 {
					if strings.Contains(stdout+stderr, secret[i:i+10]) {
						t.Fatalf("got %q, which shows %q of a secret", stdout+stderr, secret[i:i+10])
					}
				}
			}
		})
	}
}
