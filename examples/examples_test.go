// Package examples_test runs the programs as a person would.
package examples_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log"
	"os"
	"os/exec"
	"path/filepath"
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

// files writes the server's certificates into a folder.
func files(t *testing.T, s *apnstest.Server) (cert, key, ca string) {
	t.Helper()
	dir := t.TempDir()
	certs := s.Certificates()
	for name, b := range map[string][]byte{"cert.pem": certs.ClientCert, "key.pem": certs.ClientKey, "ca.pem": certs.CA} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
}

func TestPush(t *testing.T) {
	s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
		switch m.ID {
		case 2:
			return apns.StatusInvalidToken
		case 3:
			return apnstest.Fault{End: apnstest.EndReset}
		case 4:
			return apns.StatusShutdown
		case 5:
			return &apns.PushError{ID: 0, Status: apns.StatusShutdown}
		}
		return nil
	})
	s.Start()
	defer s.Close()
	cert, key, ca := files(t, s)
	flags := []string{"-addr", s.PushAddr, "-cert", cert, "-key", key, "-ca", ca}
	with := func(args ...string) []string { return append(flags[:len(flags):len(flags)], args...) }
	for name, test := range map[string]struct {
		args           []string
		stdout, stderr string
		status         int
	}{
		"local":           {[]string{"-local", token, "7", "Grüße"}, "server received: id 7, token " + token + `, payload {"aps":{"alert":"Grüße"}}` + "\naccepted\n", "", 0},
		"accepted":        {with(token, "1", "Hello"), "accepted\n", "", 0},
		"five arguments":  {[]string{"-addr", s.PushAddr, "-ca", ca, cert, key, token, "1", "Hello"}, "accepted\n", "", 0},
		"rejected":        {with(token, "2", "Hello"), "", "rejected: apns: message 2 rejected: invalid token (status 8)\n", 1},
		"in doubt":        {with(token, "3", "Hello"), "", "apns: in doubt: messages written: 1", 1},
		"shutdown after":  {with(token, "4", "Hello"), "accepted\n", "", 0},
		"shutdown before": {with(token, "5", "Hello"), "", "not sent: apns: server shut down after message 0, ", 1},
		"bad token":       {with("xyz0", "1", "Hello"), "", "not sent: apns: token has 'x' at index 0, expected only hexadecimal digits\n", 1},
		"bad id":          {with(token, "-1", "Hello"), "", `not sent: numeric id is "-1", expected 0 to 4294967295`, 1},
		"no certificate":  {[]string{"-addr", s.PushAddr, "-ca", ca, token, "1", "Hello"}, "", "the server wants a client certificate, and Config.TLS has none", 1},
		"no such file":    {[]string{"-cert", "/nonexistent", token, "1", "Hello"}, "", "not sent: certificate /nonexistent with key /nonexistent, both in PEM: open /nonexistent: ", 1},
		"CA is a key":     {[]string{"-ca", key, token, "1", "Hello"}, "", "key.pem has no certificate in PEM", 1},
		"usage":           {[]string{token}, "", "push: got 1 arguments, expected 3 or 5; see push -h\n", 2},
		"nobody there":    {[]string{"-addr", "127.0.0.1:1", token, "1", "Hello"}, "", "not sent: apns: connecting to 127.0.0.1:1: dial tcp 127.0.0.1:1: ", 1},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, status := run(t, nil, "push", test.args...)
			if stdout != test.stdout || !strings.Contains(stderr, test.stderr) || status != test.status {
				t.Errorf("got  %q, %q, %d\nwant %q, %q, %d", stdout, stderr, status, test.stdout, test.stderr, test.status)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	var cut int
	s := apnstest.NewUnstartedServer(nil)
	s.OnConnect = func(port int, _ tls.ConnectionState) error { return apnstest.Fault{Cut: cut} }
	s.Start()
	defer s.Close()
	cert, key, ca := files(t, s)
	dead := []apns.Feedback{
		{Token: token, DeadAt: time.Unix(1700000000, 0)},
		{Token: "0a", DeadAt: time.Unix(1700000001, 0)},
	}
	s.AddFeedback(dead...)
	stdout, stderr, status := run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	if want := token + " dead_at: 1700000000\n0a dead_at: 1700000001\n2 dead devices.\n"; stdout != want || stderr != "" || status != 0 {
		t.Errorf("got %q, %q, %d; want %q", stdout, stderr, status, want)
	}
	stdout, _, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, "-cert", cert, "-key", key)
	if stdout != "0 dead devices.\n" || status != 0 {
		t.Errorf("got %q, %d; want no dead devices", stdout, status)
	}
	cut = 1
	s.AddFeedback(dead...)
	stdout, stderr, status = run(t, nil, "prune", "-addr", s.FeedbackAddr, "-ca", ca, cert, key)
	want := "error: the list ends early, after 1 dead devices: apns: feedback record is cut short after 6 bytes, expected at least 7\n"
	if stdout != token+" dead_at: 1700000000\n" || stderr != want || status != 1 {
		t.Errorf("got %q, %q, %d; want one device and %q", stdout, stderr, status, want)
	}
	stdout, _, status = run(t, nil, "prune", "-local")
	if !strings.HasSuffix(stdout, "\n3 dead devices.\n") || status != 0 {
		t.Errorf("-local: got %q, %d; want 3 dead devices", stdout, status)
	}
	if _, stderr, status := run(t, nil, "prune", "x"); status != 2 || !strings.Contains(stderr, "got 1 arguments, expected none or 2") {
		t.Errorf("got %q, %d; want the usage", stderr, status)
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
	// All commands, back to back; and each cut at each byte.
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
	if _, _, status := run(t, nil, "build"); status != 2 {
		t.Errorf("no arguments: exit status %d, want 2", status)
	}
}

// Each command that the help shows, and that needs no server, works.
func TestHelp(t *testing.T) {
	commands := 0
	for _, program := range []string{"push", "prune", "build"} {
		_, help, status := run(t, nil, program, "-h")
		if status != 0 {
			t.Errorf("%s -h: exit status %d, want 0", program, status)
		}
		for line := range strings.Lines(help) {
			line = strings.TrimSpace(line)
			if !strings.HasPrefix(line, "go run ") || strings.Contains(line, "-addr") {
				continue
			}
			commands++
			line = strings.ReplaceAll(line, "./examples/", "./")
			sh, err := exec.LookPath("sh")
			if err != nil {
				t.Skip("no shell to run the commands in")
			}
			if out, err := exec.CommandContext(t.Context(), sh, "-c", line).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", line, err, out)
			}
		}
	}
	if commands != 4 {
		t.Errorf("ran %d commands, want 4", commands)
	}
}
