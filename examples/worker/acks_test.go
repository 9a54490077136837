package main

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// A nak whose confirmation is lost is not repeated: another worker has the message by then.
func TestNakOnce(t *testing.T) {
	r := newRig(t, nil)
	r.publish(demoMessage(1), demoMessage(2), demoMessage(3))
	fetch := func(n int, wait time.Duration) (messages []jetstream.Msg) {
		t.Helper()
		batch, err := r.queue.consumer.Fetch(n, jetstream.FetchMaxWait(wait))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			messages = append(messages, m)
		}
		return messages
	}
	all := fetch(3, 10*time.Second)
	subscribe(t, r.queue.nc, "acks", func(m *nats.Msg) { r.queue.nc.Publish(all[1].Reply(), m.Data) }) // whose confirmation is lost
	r.worker.acks.send(&job{reply: "acks"}, ackLater(0))
	if got := len(fetch(1, 10*time.Second)); got != 1 {
		t.Fatalf("%d are delivered after the nak, want 1", got)
	}
	if got := len(fetch(1, 2*repeatAfter)); got != 0 {
		t.Error("it is delivered once more, though it has just been delivered")
	}
	if left := r.worker.acks.close(nil); left != 0 {
		t.Errorf("%d acknowledgements are left, want none", left)
	}
}
