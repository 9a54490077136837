package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNoPasswordInErrors(t *testing.T) {
	for _, address := range []string{"nats://user:secret@127.0.0.1:1", "nats://user:s%secret@127.0.0.1:1"} {
		if _, _, err := connect(address, "test"); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-in-doubt", "forget"}, {"x"}, {"-room", "0"}, {"-ack-wait", "1ms"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q: got nil, want an error", args)
		}
	}
	if err := run(t.Context(), []string{"publish"}); err == nil {
		t.Error("publish without -nats: got nil, want an error")
	}
	if _, err := parse([]string{"-h"}); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: got %v", err)
	}
}

// A line that is published twice is in the queue once. A line that is no message is not quoted.
func TestPublishLines(t *testing.T) {
	r := newRig(t, nil)
	s := &settings{nats: r.queue.nc.ConnectedUrl(), queueSettings: queueSettings{maxAge: time.Hour, replicas: 1}}
	one, two := demoMessage(1), demoMessage(2)
	var out bytes.Buffer
	if err := publishLines(t.Context(), bytes.NewReader(bytes.Join([][]byte{one, two, one}, []byte("\n"))), &out, s); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "published 2, duplicates 1\n"; got != want || r.left(pushStream) != 2 {
		t.Errorf("got %q and %d messages in the queue, want %q and 2", got, r.left(pushStream), want)
	}
	out.Reset()
	err := publishLines(t.Context(), strings.NewReader(string(demoMessage(3))+"\n"+`{"token": "decade", "payload":`), &out, s)
	if err == nil || strings.Contains(err.Error(), "decade") {
		t.Errorf("got %v, want an error without the token", err)
	}
	if got, want := out.String(), "published 1, duplicates 0\n"; got != want {
		t.Errorf("a line is wrong: got %q, want %q", got, want)
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
	s, err := parse([]string{"-nats", r.queue.nc.ConnectedUrl()})
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
