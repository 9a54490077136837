package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

func TestNoPasswordInErrors(t *testing.T) {
	for _, address := range []string{"nats://user:secret@127.0.0.1:1", "nats://user:s%secret@127.0.0.1:1"} {
		if _, _, err := connect(address, "test"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}

func TestParse(t *testing.T) {
	const real = "-nats=nats://127.0.0.1:1 -p8=key.p8 "
	for _, test := range []struct{ command, args, want string }{
		{"", "", ""},
		{"", real, ""},
		{"publish", "-nats=nats://127.0.0.1:1", ""},
		{"server", "-listen=127.0.0.1:1 -store=x", ""},
		{"", "x", "got 1 arguments beside the flags, expected none; see -h"},
		{"", "-in-doubt=forget", `-in-doubt is "forget", expected redeliver, ack or park`},
		{"", "-room=0", "-room is 0, expected at least 1"},
		{"", "-pending=-1", "-pending is -1, expected at least 1"},
		{"", "-ack-wait=1ms", "-ack-wait is 1ms, expected at least a second"},
		{"", "-max-age=1m", "-max-age is 1m0s, expected at least 2m0s, for which NATS remembers what was published"},
		{"", "-replicas=0", "-replicas is 0, expected 1 to 5"},
		{"", "-replicas=6", "-replicas is 6, expected 1 to 5"},
		{"", "-grace=-1s", "-grace is -1s, expected 0 or more"},
		{"", "-nats=nats://127.0.0.1:1", "-p8 is empty, expected the .p8 file of the authentication key, since -nats is set"},
		{"", "-listen=:8080", "-nats is empty, expected the URL of a NATS server, since -p8 or -listen is set"},
		{"publish", "", "-nats is empty, expected the URL of a NATS server"},
	} {
		got := ""
		if _, err := parse(test.command, strings.Fields(test.args)); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s %s: got %q, want %q", test.command, test.args, got, test.want)
		}
	}
	if _, err := parse("", []string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: got %v", err)
	}
}

// What is passed in the place of a file's name may be a secret.
func TestNoSecretInErrors(t *testing.T) {
	certs := newRig(t, nil).server.Certificates()
	key := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(key, certs.AuthKey, 0o600); err != nil {
		t.Fatal(err)
	}
	secret := string(certs.ClientKey)
	for name, s := range map[string]settings{
		"-p8": {p8: secret},
		"-ca": {p8: key, ca: secret},
	} {
		s.keyID, s.teamID = apnstest.KeyID, apnstest.TeamID
		_, err := s.client(new(metrics))
		if err == nil {
			t.Errorf("%s: got no error, want one", name)
			continue
		}
		for i := range len(secret) - 9 {
			if strings.Contains(err.Error(), secret[i:i+10]) {
				t.Errorf("%s: got %q, which shows %q of a secret", name, err, secret[i:i+10])
				break
			}
		}
		if name == "-ca" && !strings.Contains(err.Error(), name) {
			t.Errorf("got %q, want an error that names -ca", err)
		}
	}
}

// Without -addr it is Apple's production server, as with the other programs.
func TestDefaultServer(t *testing.T) {
	s, err := parse("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.addr != apns.Production {
		t.Errorf("the server is %s, want %s", s.addr, apns.Production)
	}
	if first, _, _ := strings.Cut(usage, "\n"); !strings.Contains(first, "production") {
		t.Errorf("the help begins with %q, want a line that says production", first)
	}
}

// A line that is published twice is in the queue once. Blank lines are skipped. An error has
// the number of the line, and does not quote it.
func TestPublishLines(t *testing.T) {
	r := newRig(t, nil)
	s := &settings{nats: r.queue.nc.ConnectedUrl(), queueSettings: queueSettings{maxAge: time.Hour, replicas: 1}}
	one, two := demoMessage(1), demoMessage(2)
	var out bytes.Buffer
	if err := publishLines(t.Context(), bytes.NewReader(bytes.Join([][]byte{one, nil, two, []byte(" "), one, nil, nil}, []byte("\n"))), &out, s); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "published 2, duplicates 1\n"; got != want || r.left(pushStream) != 2 {
		t.Errorf("got %q and %d messages in the queue, want %q and 2", got, r.left(pushStream), want)
	}
	out.Reset()
	err := publishLines(t.Context(), strings.NewReader(string(demoMessage(3))+"\n\n"+`{"token": "decade", "payload":`), &out, s)
	if err == nil || !strings.HasPrefix(err.Error(), "line 3 ") || strings.Contains(err.Error(), "decade") {
		t.Errorf("got %v, want an error about line 3, without the token", err)
	}
	if got, want := out.String(), "published 1, duplicates 0\n"; got != want {
		t.Errorf("a line is wrong: got %q, want %q", got, want)
	}
	err = publishLines(t.Context(), strings.NewReader("\n"+strings.Repeat("decade", 64<<10)), &out, s)
	if err == nil || !strings.HasPrefix(err.Error(), "line 2: ") || strings.Contains(err.Error(), "decade") {
		t.Errorf("a long line: got %v, want an error about line 2, without the line", err)
	}
}

// A signal ends a publisher whose input blocks.
func TestPublishEnds(t *testing.T) {
	r := newRig(t, nil)
	c := &cluster{}
	cmd := c.command("publish", "-nats", r.queue.nc.ConnectedUrl())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	in.Write(append(demoMessage(1), '\n'))
	r.waitFor("a line is published", func() bool { return r.left(pushStream) == 1 })
	cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended with success, want an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
}

// Whoever publishes does not change how long and how often the queue stores messages.
func TestPublishKeepsStreams(t *testing.T) {
	r := newRig(t, nil)
	s, err := parse("publish", []string{"-nats", r.queue.nc.ConnectedUrl()})
	if err != nil {
		t.Fatal(err)
	}
	if err := publishLines(t.Context(), bytes.NewReader(demoMessage(1)), io.Discard, s); err != nil {
		t.Fatal(err)
	}
	stream, err := r.queue.js.Stream(t.Context(), pushStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().Config.MaxAge; got != time.Hour {
		t.Errorf("MaxAge is %v, want an hour as before", got)
	}
}
