// Package examples_test runs the programs as a user would.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

const token = "00c0ffee00112233445566778899aabbccddeeff0102030405060708090a0b0c"

var bin string // the folder of the programs

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "apns")
	if err != nil {
		log.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput(); err != nil {
		log.Fatalf("%v\n%s", err, out)
	}
	bin = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// run runs a program and returns what it wrote, and its exit status.
func run(t *testing.T, stdin []byte, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if err != nil && !ok {
		t.Fatal(err)
	}
	if ok {
		status = exit.ExitCode()
	}
	return out.String(), errOut.String(), status
}

// files writes the server's certificates and keys into a folder.
func files(t *testing.T, s *apnstest.Server) (cert, key, ca, p8 string) {
	t.Helper()
	certs := s.Certificates()
	return file(t, "cert.pem", certs.ClientCert), file(t, "key.pem", certs.ClientKey), file(t, "ca.pem", certs.CA), file(t, "AuthKey.p8", certs.AuthKey)
}

func file(t *testing.T, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPush(t *testing.T) {
	const bad, dead, cut, last, late, unasked = "0bad", "dead", "0c", "0e", "0f", "0a"
	s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
		switch m.Token {
		case bad:
			return apns.ReasonBadDeviceToken
		case cut:
			return apnstest.Fault{End: apnstest.EndRST}
		case last:
			return apns.StatusShutdown
		case late:
			return &apns.PushError{ID: 0, Status: apns.StatusShutdown}
		case unasked:
			return apnstest.Fault{End: apnstest.EndRefusedStream}
		}
		return nil
	})
	s.Start()
	defer s.Close()
	s.Unregister(dead, time.Unix(1700000000, 0))
	cert, key, ca, p8 := files(t, s)
	both := file(t, "both.pem", slices.Concat(s.Certificates().ClientCert, s.Certificates().ClientKey))
	object := file(t, "payload.json", []byte("{\"aps\": {\"badge\": 0}}\n"))
	syntax := file(t, "syntax.json", []byte(`{"aps":}`))
	array := file(t, "array.json", []byte(`[]`))
	null := file(t, "null.json", []byte(`null`))

	list := func(args ...string) []string { return args }
	binary := func(args ...string) []string {
		return append(list("-addr", s.PushAddr, "-ca", ca, "-cert", cert, "-key", key), args...)
	}
	h2 := func(args ...string) []string {
		return append(list("-addr", s.HTTP2Addr, "-ca", ca, "-bundle-id", apnstest.BundleID, "-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID), args...)
	}
	h2Cert := func(args ...string) []string {
		return append(list("-addr", s.HTTP2Addr, "-ca", ca, "-cert", cert, "-key", key), args...)
	}
	const (
		received = "server received: token " + token
		ok       = "accepted\n"
	)
	for name, test := range map[string]struct {
		args           []string
		stdout, stderr string
		status         int
	}{
		"local": {list("-local", token, "7", "Grüße"),
			received + `, topic com.example.app, type alert, collapse ID -, priority -, expiry -, payload {"aps":{"alert":"Grüße"}}` + "\naccepted\n", "", 0},
		"local h2 with flags": {list("-local", "-protocol", "h2", "-type", "voip", "-topic", "a.b.voip", "-collapse-id", "c", "-priority", "1", "-expiry", "0", "-payload", object, token),
			received + `, topic a.b.voip, type voip, collapse ID c, priority 1, expiry now or never, payload {"aps": {"badge": 0}}` + "\naccepted\n", "", 0},
		"local h2 type": {list("-local", "-type", "voip", token, "Hi"),
			received + `, topic com.example.app.voip, type voip, collapse ID -, priority -, expiry -, payload {"aps":{"alert":"Hi"}}` + "\naccepted\n", "", 0},
		"local h2 bundle ID": {list("-local", "-bundle-id", "a.b", "-type", "voip", token, "Hi"),
			received + `, topic a.b.voip, type voip, collapse ID -, priority -, expiry -, payload {"aps":{"alert":"Hi"}}` + "\naccepted\n", "", 0},
		"local h2 rejected": {list("-local", "-type", "voip", "-topic", "com.example.app", token, "7", "Hi"),
			received + `, topic com.example.app, type voip, collapse ID -, priority -, expiry -, payload {"aps":{"alert":"Hi"}}` + "\n", "rejected: BadTopic (HTTP status 400)\nThe topic does not fit the push type. Give the app's bundle ID in -bundle-id, ", 1},
		"local binary": {list("-local", "-protocol", "binary", token, "7", "Hi"),
			received + `, topic -, type -, collapse ID -, priority -, expiry now or never, payload {"aps":{"alert":"Hi"}}` + "\naccepted\n", "", 0},
		"local binary priority": {list("-local", "-protocol", "binary", "-priority", "5", token, "7", "Hi"),
			received + `, topic -, type -, collapse ID -, priority 5, expiry -, payload {"aps":{"alert":"Hi"}}` + "\naccepted\n", "", 0},

		"h2 key":              {h2(token, "1", "Hello"), ok, "", 0},
		"h2 certificate":      {h2Cert(token, "1", "Hello"), ok, "", 0},
		"h2 certificate file": {list("-addr", s.HTTP2Addr, "-ca", ca, "-cert", both, token, "1", "Hello"), ok, "", 0},
		"h2 topic":            {list("-addr", s.HTTP2Addr, "-ca", ca, "-topic", apnstest.BundleID, "-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, token, "Hello"), ok, "", 0},
		"h2 rejected":         {h2(bad, "2", "Hello"), "", "rejected: BadDeviceToken (HTTP status 400)\nThe server does not know the token. It is valid in one environment alone: ", 1},
		"h2 dead":             {h2(dead, "2", "Hello"), "", "rejected: Unregistered (HTTP status 410, dead since 2023-11-14T22:13:20Z)\nThe app was removed from the device. Delete the token, ", 1},
		"h2 wrong team":       {h2("-team-id", "APNSTESTT2", token, "2", "Hello"), "", "not sent: the server refuses this sender: InvalidProviderToken (HTTP status 403)\nThe key, its key ID and the team ID do not belong together, ", 1},
		"h2 in doubt":         {h2(cut, "3", "Hello"), "", "in doubt: ", 1},
		"h2 not sent":         {h2(unasked, "3", "Hello"), "", "not sent: ", 1},
		"h2 shutdown after":   {h2(last, "4", "Hello"), ok, "", 0},
		"h2 bad token":        {h2("xyz0", "1", "Hello"), "", "invalid: token has 'x' at index 0, expected only hexadecimal digits\n", 1},
		"h2 payload":          {h2("-payload", object, token), ok, "", 0},

		"binary":                 {binary(token, "1", "Hello"), ok, "", 0},
		"binary five arguments":  {list("-addr", s.PushAddr, "-ca", ca, cert, key, token, "1", "Hello"), ok, "", 0},
		"binary rejected":        {binary(bad, "2", "Hello"), "", "rejected: invalid token (status 8)\nThe server does not know the token.", 1},
		"binary in doubt":        {binary(cut, "3", "Hello"), "", "in doubt: messages written: 1", 1},
		"binary shutdown after":  {binary(last, "4", "Hello"), ok, "", 0},
		"binary shutdown before": {binary(late, "5", "Hello"), "", "not sent: server shut down after message 0, ", 1},
		"binary bad token":       {binary("xyz0", "1", "Hello"), "", "invalid: token has 'x' at index 0, expected only hexadecimal digits\n", 1},
		"binary priority 1":      {binary("-priority", "1", token, "1", "Hello"), "", "invalid: priority is 1, expected 10 or 5", 1},
		"binary with a key":      {h2("-addr", s.PushAddr, token, "1", "Hello"), "", "did not negotiate HTTP/2", 1},

		"no such certificate": {list("-cert", "/nonexistent", token, "1", "Hello"), "", "not sent: reading the certificate: open /nonexistent: ", 1},
		"no such p8":          {h2("-p8", "/nonexistent", token, "1", "Hello"), "", "not sent: reading the auth key: open /nonexistent: ", 1},
		"bad key ID":          {h2("-key-id", "1", token, "1", "Hello"), "", "key ID has a length of 1, expected 10 digits and capital letters\n", 1},
		"CA is a key":         {h2("-ca", key, token, "1", "Hello"), "", "key.pem has no certificate in PEM\n", 1},
		"unknown CA":          {h2("-ca", cert, token, "1", "Hello"), "", "not sent: TLS handshake with ", 1},
		"no such payload":     {h2("-payload", "/nonexistent", token), "", "not sent: open /nonexistent: ", 1},
		"payload syntax":      {h2("-payload", syntax, token), "", "not sent: " + syntax + ": payload is not JSON, at byte 8: invalid character '}'", 1},
		"payload array":       {h2("-payload", array, token), "", "not sent: " + array + `: payload is not a JSON object, expected {"aps":...}` + "\n", 1},
		"payload null":        {h2("-payload", null, token), "", null + ": payload is not a JSON object", 1},
		"nobody there":        {list("-addr", "127.0.0.1:1", cert, key, token, "1", "Hello"), "", "not sent: connecting to 127.0.0.1:1: dial tcp 127.0.0.1:1: ", 1},

		"one argument":        {h2(token), "", "push: number of arguments is 1, expected 2: device token, alert text; see push -h\n", 2},
		"four arguments":      {h2(cert, key, token, "Hello"), "", "push: number of arguments is 4, expected 2: device token, alert text; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"payload and text":    {h2("-payload", object, token, "Hello"), "", "push: number of arguments is 2, expected 1 with -payload: device token, after all flags; see push -h\n", 2},
		"id twice":            {h2("-id", "7", token, "1", "Hello"), "", "push: an id both after the device token and in -id, expected one of them; see push -h\n", 2},
		"-id":                 {h2("-id", token, token, "Hello"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; see push -h\n", 2},
		"two words":           {list("-local", token, "Hello", "world"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"five words":          {h2(token, "one", "two", "three", "four"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"flag at the end":     {list("-local", token, "Hello", "-json"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"id at the end":       {list("-local", token, "Hello", "1"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"large id":            {h2(token, "4294967296", "Hello"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"tokens, two words":   {h2("-tokens", object, "Hello", "world"), "", "push: number of arguments is 2, expected only the alert text: with -tokens the device tokens are in its file; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"payload, then flag":  {list("-local", "-payload", object, token, "-json"), "", "push: number of arguments is 2, expected 1 with -payload: device token, after all flags; see push -h\n", 2},
		"nobody's sandbox":    {h2("-sandbox", token, "Hello"), "", "push: both -sandbox and -addr, expected one of them; see push -h\n", 2},
		"bad id":              {h2(token, "-1", "Hello"), "", "push: numeric id is invalid, expected a number from 0 to 4294967295; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"no credentials":      {list(token, "1", "Hello"), "", "push: no credentials, expected -p8 with -key-id and -team-id, or -cert with -key; or -local, which needs none; see push -h\n", 2},
		"p8 alone":            {list("-p8", p8, "-bundle-id", "a", token, "1", "Hello"), "", "-p8, -key-id and -team-id go together", 2},
		"p8 without team":     {list("-p8", p8, "-key-id", apnstest.KeyID, "-bundle-id", "a", token, "1", "Hello"), "", "-p8, -key-id and -team-id go together", 2},
		"key ID alone":        {list("-key-id", apnstest.KeyID, "-cert", cert, token, "1", "Hello"), "", "-p8, -key-id and -team-id go together", 2},
		"p8 without topic":    {list("-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID, token, "1", "Hello"), "", "push: -p8 without -bundle-id, expected the app's bundle ID: ", 2},
		"p8 and cert":         {h2("-cert", cert, token, "1", "Hello"), "", "both -p8 and a certificate, expected one of them", 2},
		"p8 and five":         {h2(cert, key, token, "1", "Hello"), "", "both -p8 and a certificate, expected one of them", 2},
		"cert and five":       {h2Cert(cert, key, token, "1", "Hello"), "", "a certificate both in front of the device token and in -cert or -key", 2},
		"key without cert":    {list("-key", key, token, "1", "Hello"), "", "-key without -cert", 2},
		"not local":           {h2("-protocol", "h2", token, "1", "Hello"), "", "-protocol without -local", 2},
		"unknown protocol":    {list("-local", "-protocol", "spdy", token, "1", "Hello"), "", "push: -protocol is unknown, expected h2 or binary; see push -h\n", 2},
		"local and addr":      {list("-local", "-addr", s.PushAddr, token, "1", "Hello"), "", "-local with an address or credentials", 2},
		"local and five":      {list("-local", cert, key, token, "1", "Hello"), "", "push: number of arguments is 5, expected 2: device token, alert text; put a text of several words in quotes, and flags before the arguments; see push -h\n", 2},
		"local, sandbox":      {list("-local", "-sandbox", token, "1", "Hello"), "", "-local with an address or credentials", 2},
		"priority 7":          {list("-local", "-priority", "7", token, "1", "Hello"), "", "push: -priority is invalid, expected 10, 5 or 1, or 0 to leave it to the server", 2},
		"priority 266":        {list("-local", "-priority", "266", token, "1", "Hello"), "", "expected 10, 5 or 1, or 0 to leave it to the server", 2},
		"expiry without unit": {list("-local", "-expiry", "30", token, "1", "Hello"), "", "push: -expiry is invalid, expected a duration from now, as 90m or 24h, or 0 for now or never", 2},
		"expiry gone by":      {list("-local", "-expiry", "-1h", token, "1", "Hello"), "", "expected a duration from now", 2},
		"unknown flag":        {list("-x"), "", "push: flag provided but not defined: -x; see push -h\n", 2},
		"unknown with value":  {list("-tokenz=tokens.txt"), "", "push: flag provided but not defined: -tokenz; see push -h\n", 2},
		"PEM for a flag":      {list("-----BEGIN PRIVATE KEY-----\nMIGH"), "", "push: a text in PEM is in the place of a flag, expected the name of its file; see push -h\n", 2},
		"text before token":   {list("-local", "-1 degree", token), "", "push: an argument that begins with - is no flag (not shown, since it may be a secret), expected -- before a text that begins with -; see push -h\n", 2},
		"flag without value":  {list("-local", "-topic"), "", "push: flag needs an argument: -topic; see push -h\n", 2},
		"bool with value":     {list("-local=x", token, "Hi"), "", "push: -local is invalid, expected true or false; see push -h\n", 2},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := run(t, nil, "push", test.args...)
			if stdout != test.stdout || !strings.Contains(stderr, test.stderr) || strings.Count(stderr, "rejected") > 1 || status == 2 && strings.Count(stderr, "\n") != 1 || test.stderr == "" && stderr != "" || status != test.status {
				t.Errorf("got  %q, %q, %d\nwant %q, %q, %d", stdout, stderr, status, test.stdout, test.stderr, test.status)
			}
		})
	}
}

// The message that arrives is the one that the flags describe.
func TestPushFlags(t *testing.T) {
	s := apnstest.NewServer(nil)
	defer s.Close()
	cert, key, ca, p8 := files(t, s)
	payload := file(t, "payload.json", []byte(`{"aps":{"content-available":1}}`))
	auth := []string{"-addr", s.HTTP2Addr, "-ca", ca, "-p8", p8, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID}
	for name, test := range map[string]struct {
		args   []string
		want   apns.Message
		expiry time.Duration // from now; want.Expiry if it is 0
	}{
		"h2 none": {append(auth, "-topic", "a.b", token, "1", "Hi"),
			apns.Message{Token: token, Topic: "a.b", PushType: "alert", Payload: apns.AlertPayload("Hi")}, 0},
		"h2 all": {append(auth, "-topic", "a.b", "-type", "background", "-collapse-id", "c", "-priority", "5", "-expiry", "90m", "-payload", payload, token),
			apns.Message{Token: token, Topic: "a.b", PushType: "background", CollapseID: "c", Priority: 5, Payload: []byte(`{"aps":{"content-available":1}}`)}, 90 * time.Minute},
		"h2 now or never": {append(auth, "-topic", "a.b", "-priority", "10", "-expiry", "0", token, "1", "Hi"),
			apns.Message{Token: token, Topic: "a.b", PushType: "alert", Priority: 10, Payload: apns.AlertPayload("Hi"), Expiry: time.Unix(0, 0).UTC()}, 0},
		"binary none": {[]string{"-addr", s.PushAddr, "-ca", ca, cert, key, token, "8", "Hi"},
			apns.Message{ID: 8, Token: token, Payload: apns.AlertPayload("Hi"), Expiry: time.Unix(0, 0).UTC()}, 0},
		"binary all": {[]string{"-addr", s.PushAddr, "-ca", ca, "-topic", "a.b", "-type", "background", "-collapse-id", "c", "-priority", "5", "-expiry", "90m", "-payload", payload, "-cert", cert, "-key", key, "-id", "9", token},
			apns.Message{ID: 9, Token: token, Priority: 5, Payload: []byte(`{"aps":{"content-available":1}}`)}, 90 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := run(t, nil, "push", test.args...)
			if stdout != "accepted\n" || status != 0 {
				t.Fatalf("got %q, %q, %d; want accepted", stdout, stderr, status)
			}
			records := s.Records()
			got := *records[len(records)-1].Message
			if test.expiry != 0 {
				if left := time.Until(got.Expiry); left > test.expiry || left < test.expiry-time.Minute {
					t.Errorf("expiry is in %v, want %v", left, test.expiry)
				}
				got.Expiry = time.Time{}
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// A write error is not a success.
func TestOutputError(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for program, test := range map[string]struct {
		args []string
		want string
	}{
		"push":  {[]string{"-local", token, "1", "Hello"}, "accepted, but: write /dev/stdout: "},
		"prune": {[]string{"-local"}, "error: write /dev/stdout: "},
		"build": {[]string{token, "1", "Hello"}, "error: write /dev/stdout: "},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, program), test.args...)
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = full, &stderr
		err := cmd.Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 || !strings.HasPrefix(stderr.String(), test.want) {
			t.Errorf("%s: got %v, %q; want status 1 and %q", program, err, stderr.String(), test.want)
		}
	}
}

func TestBuild(t *testing.T) {
	raw, stderr, status := run(t, nil, "build", token, "7", "Hello")
	want, _ := apns.BuildMsg(&apns.Message{ID: 7, Token: token, Payload: apns.AlertPayload("Hello")})
	if raw != string(want) || stderr != "" || status != 0 {
		t.Errorf("got % x, %q, %d; want % x", raw, stderr, status, want)
	}
	dump, _, _ := run(t, nil, "build", "-hex", "-priority", "5", "c0ffee", "7", "Hello")
	const golden = `     0  02                       command              framed format
     1  00 00 00 34              frame length         52
     5  01                       item                 device token
     6  00 03                    item length          3
     8  c0 ff ee                 device token         c0ffee
    11  02                       item                 payload
    12  00 19                    item length          25
    14  7b 22 61 70 73 22 3a 7b  payload              "{\"aps\":{\"alert\":\"Hello\"}}"
    22  22 61 6c 65 72 74 22 3a
    30  22 48 65 6c 6c 6f 22 7d
    38  7d
    39  03                       item                 identifier
    40  00 04                    item length          4
    42  00 00 00 07              identifier           7
    46  04                       item                 expiry
    47  00 04                    item length          4
    49  00 00 00 00              expiry               0: one attempt, nothing kept
    53  05                       item                 priority
    54  00 01                    item length          1
    56  05                       priority             5
message 1: id 7, token c0ffee, payload "{\"aps\":{\"alert\":\"Hello\"}}"

`
	if dump != golden {
		t.Errorf("got\n%s\nwant\n%s", dump, golden)
	}
	// All three formats one after the other, and the same cut short at each byte.
	simple := append([]byte{0, 0, 1, 0xab, 0, 2}, "{}"...)
	framed, _ := apns.BuildMsg(&apns.Message{ID: 8, Token: "ab", Payload: []byte("{}"), Priority: 10, Expiry: time.Unix(1700000000, 0)})
	all := append(append(simple, framed...), want...)
	dump, stderr, status = run(t, all, "build", "-decode")
	for _, part := range []string{"simple format", "framed format", "extended format", "message 3: id 7, token " + token, "2023-11-14T22:13:20Z"} {
		if !strings.Contains(dump, part) {
			t.Errorf("%q is missing in\n%s", part, dump)
		}
	}
	if stderr != "" || status != 0 {
		t.Errorf("got %q, %d; want nothing", stderr, status)
	}
	for n := range all {
		_, stderr, status := run(t, all[:n], "build", "-decode")
		whole := n == 0 || n == len(simple) || n == len(simple)+len(framed)
		if whole != (status == 0) || !whole && !strings.Contains(stderr, "is cut short after") {
			t.Errorf("cut at %d: got %q, %d", n, stderr, status)
		}
	}
	dump, stderr, status = run(t, append(want, "GET /"...), "build", "-decode")
	wantErr := "error: message 2, from offset 70 on: apns: at offset 0: message has command 71, expected 0, 1 or 2\n"
	if stderr != wantErr || status != 1 || !strings.Contains(dump, "    70  47 45 54 20 2f           ?                    broken here") {
		t.Errorf("got %q, %d\n%s\nwant %q", stderr, status, dump, wantErr)
	}
	for _, args := range [][]string{{"xyz0", "1", "Hello"}, {"ab", "x", "Hello"}, {"-priority", "7", "ab", "1", "Hello"}, {"-priority", "300", "ab", "1", "Hello"}} {
		if stdout, stderr, status := run(t, nil, "build", args...); stdout != "" || status != 1 || !strings.HasPrefix(stderr, "error: ") {
			t.Errorf("%v: got %q, %q, %d; want an error", args, stdout, stderr, status)
		}
	}
	for want, args := range map[string][]string{
		"build: -priority is invalid, expected a number of 0 or more; see build -h\n":        {"-priority", "x", "ab", "1", "Hello"},
		"build: -expiry is invalid, expected a duration, such as 90m or 24h; see build -h\n": {"-expiry", "1", "ab", "1", "Hello"},
	} {
		if _, stderr, status := run(t, nil, "build", args...); stderr != want || status != 2 {
			t.Errorf("%v: got %q, %d; want %q, 2", args, stderr, status, want)
		}
	}
	if _, _, status := run(t, nil, "build"); status != 2 {
		t.Errorf("no arguments: exit status %d, want 2", status)
	}
}

// Each command in the help works. Where it names a server or files, the test replaces them
// with its own.
func TestHelp(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to run the commands in")
	}
	s := apnstest.NewServer(nil)
	defer s.Close()
	cert, key, ca, p8 := files(t, s)
	list := file(t, "tokens.txt", []byte(token+"\n"))
	h2 := " -addr " + s.HTTP2Addr + " -ca " + ca
	accepted := file(t, "accepted.txt", []byte("c0ffee\n"))
	replacer := strings.NewReplacer(
		"./examples/prune -probe -sandbox", "./prune -probe"+h2,
		"./examples/prune -probe", "./prune -probe"+h2,
		"./examples/push -sandbox", "./push"+h2,
		"./examples/push -p8", "./push"+h2+" -p8",
		"./examples/push -cert", "./push"+h2+" -cert",
		"./examples/doctor -sandbox", "./doctor"+h2,
		"./examples/doctor -p8", "./doctor"+h2+" -p8",
		"./examples/doctor -probe -p8", "./doctor -probe"+h2+" -p8",
		"./examples/prune -local -probe", "./prune -local -probe",
		"./examples/", "./",
		"gateway.example.com:2195", s.PushAddr+" -ca "+ca,
		"feedback.example.com:2196", s.FeedbackAddr+" -ca "+ca,
		"AuthKey_ABC123DEFG.p8", p8,
		"ABC123DEFG", apnstest.KeyID,
		"DEF123GHIJ", apnstest.TeamID,
		"cert.pem", cert,
		"key.pem", key,
		"<device-token>", token,
		"tokens.txt", list,
		"retry.txt", filepath.Join(t.TempDir(), "retry.txt"),
		"accepted.txt", accepted,
	)
	for program, want := range map[string]int{"push": 10, "prune": 5, "doctor": 4, "build": 2} {
		help, stderr, status := run(t, nil, program, "-h")
		if stderr != "" || status != 0 {
			t.Errorf("%s -h: got %q, exit status %d; want 0", program, stderr, status)
		}
		wantFirst := "Apple's production server"
		if program == "build" {
			wantFirst = "no server" // it needs none, so it has no environment
		}
		if first, _, _ := strings.Cut(help, "\n"); !strings.Contains(first, wantFirst) {
			t.Errorf("%s -h: got the first line %q, want %q in it", program, first, wantFirst)
		}
		commands := 0
		for line := range strings.Lines(help) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "go run ") && !strings.Contains(line, " | go run ") && !strings.HasPrefix(line, "grep ") {
				continue
			}
			commands++
			line = strings.ReplaceAll(replacer.Replace(line), "go run ./", bin+"/")
			out, err := exec.CommandContext(t.Context(), sh, "-c", line).CombinedOutput()
			if strings.HasPrefix(line, "grep ") && len(out) == 0 {
				continue // all lines were accepted, and grep has status 1
			}
			if err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
		if commands != want {
			t.Errorf("%s -h: ran %d commands, want %d", program, commands, want)
		}
	}
	if n := len(s.Messages(apnstest.Accepted)); n != 8 {
		t.Errorf("%d messages arrived, want 8: with a key, with a certificate, on the binary protocol; twice each, push and prune with -tokens; and the doctor's", n)
	}
	if got := readTokens(t, accepted); !slices.Equal(got, []string{"c0ffee", token}) {
		t.Errorf("the accepted file has %q, want what it had and %s", got, token)
	}
}
