package main

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// While a cluster elects the leader of a consumer nobody takes acknowledgements, and NATS says
// so. That is no confirmation.
func TestNobodyTakesAcknowledgement(t *testing.T) {
	nc := startTestServer(t)
	confirmed := make(chan *job, 1)
	a, err := newAcknowledger(nc, func(j *job) { confirmed <- j })
	if err != nil {
		t.Fatal(err)
	}
	a.send(&job{reply: "acks"}, ackDone)
	select {
	case <-confirmed:
		t.Fatal("it is confirmed, though nobody took it")
	case <-time.After(500 * time.Millisecond):
	}
	subscribe(t, nc, "acks", func(m *nats.Msg) { m.Respond(nil) })
	select {
	case <-confirmed:
	case <-time.After(10 * time.Second):
		t.Error("it is not repeated")
	}
	if left := a.close(nil); left != 0 {
		t.Errorf("%d are left, want none", left)
	}
}

func subscribe(t *testing.T, nc *nats.Conn, subject string, f nats.MsgHandler) {
	t.Helper()
	if _, err := nc.Subscribe(subject, f); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}
