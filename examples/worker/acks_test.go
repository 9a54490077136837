package main

import (
	"bytes"
	"fmt"
	"log"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
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

// ackOf returns the acknowledgement that a worker sends for an outcome.
func ackOf(t *testing.T, w *worker, delivered uint64, err error) string {
	t.Helper()
	sub, subErr := w.queue.nc.SubscribeSync(nats.NewInbox())
	if subErr != nil {
		t.Fatal(subErr)
	}
	defer sub.Unsubscribe()
	j := &job{sequence: 7, delivered: delivered, reply: sub.Subject}
	j.message.Value = j
	w.resolve(apns.Result{Message: &j.message, Err: err})
	m, subErr := sub.NextMsg(10 * time.Second)
	if subErr != nil {
		t.Fatal(subErr)
	}
	m.Respond(nil)
	return string(m.Data)
}

// A server that says how long to wait is obeyed, for as long as the stream has messages, an hour here.
// Otherwise the wait grows with each delivery, and there is none while the worker drains.
func TestRetryDelays(t *testing.T) {
	r := newRig(t, nil)
	throttled := func(after time.Duration) error {
		return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
	}
	const notSaid = -1
	for _, test := range []struct {
		asked     time.Duration
		delivered uint64
		draining  bool
		want      time.Duration
	}{
		{notSaid, 1, false, time.Second},
		{notSaid, 4, false, 8 * time.Second},
		{notSaid, 100, false, time.Minute},
		{notSaid, 4, true, 0},
		{0, 4, false, 8 * time.Second},
		{3 * time.Second, 1, false, 3 * time.Second},
		{time.Second, 4, false, time.Second},
		{time.Second, 4, true, time.Second},
		{20 * time.Minute, 1, false, 20 * time.Minute},
		{20 * time.Minute, 1, true, 20 * time.Minute},
		{math.MaxInt64, 1, false, time.Hour},
		{math.MaxInt64, 1, true, time.Hour},
	} {
		err := apns.ErrNotSent
		if test.asked != notSaid {
			err = throttled(test.asked)
		}
		r.worker.draining.Store(test.draining)
		if got, want := ackOf(t, r.worker, test.delivered, err), ackLater(test.want); got != want {
			t.Errorf("asked to wait %v, delivery %d, draining %v: got %s, want %s", test.asked, test.delivered, test.draining, got, want)
		}
	}
}

// Credentials that are refused: a message waits for a minute, and the log has one error until a
// server takes them.
func TestRefusedAlarm(t *testing.T) {
	r := newRig(t, nil)
	var out bytes.Buffer
	log.SetOutput(&out)
	defer log.SetOutput(os.Stderr)
	refused := fmt.Errorf("%w: %w: no server takes this key", apns.ErrNotSent, apns.ErrRefused)
	for _, test := range []struct {
		err  error
		ack  string
		errs int // in the log so far
	}{
		{refused, ackLater(time.Minute), 1},
		{refused, ackLater(time.Minute), 1},
		{nil, ackDone, 1},
		{refused, ackLater(time.Minute), 2},
	} {
		if got := ackOf(t, r.worker, 1, test.err); got != test.ack {
			t.Errorf("%v: got %s, want %s", test.err, got, test.ack)
		}
		log.SetOutput(os.Stderr) // while out is read
		if got := strings.Count(out.String(), "ERROR nothing can be sent"); got != test.errs || !strings.Contains(out.String(), "no server takes this key") {
			t.Errorf("the log is %q, want %d errors that say why", out.String(), test.errs)
		}
		log.SetOutput(&out)
	}
}

// A message that is acknowledged after it was found to be late is not extended.
func TestNotExtendedAfterNak(t *testing.T) {
	r := newRig(t, nil)
	sub, err := r.queue.nc.SubscribeSync("acks")
	if err != nil {
		t.Fatal(err)
	}
	w := r.worker
	j, other := &job{reply: "acks", delivered: 1}, &job{reply: "acks"}
	w.held[j], w.held[other] = struct{}{}, struct{}{}
	late := w.late(time.Now())
	if len(late) != 2 || len(w.late(time.Now())) != 0 {
		t.Fatalf("%d are late at first, and some once more, want 2 and none", len(late))
	}
	w.retry(j, 0, time.Second)
	for _, l := range late {
		if got := w.acks.progress(l); got != (l == other) {
			t.Errorf("extended: got %v, want %v", got, l == other)
		}
	}
	for _, want := range []string{ackLater(time.Second), ackProgress} {
		m, err := sub.NextMsg(10 * time.Second)
		if err != nil || string(m.Data) != want {
			t.Fatalf("got %v (%v), want %s", m, err, want)
		}
	}
}

// The log says which message is in doubt, and why.
func TestInDoubtLog(t *testing.T) {
	r := newRig(t, nil)
	var out bytes.Buffer
	log.SetOutput(&out)
	defer log.SetOutput(os.Stderr)
	if got, want := ackOf(t, r.worker, 1, fmt.Errorf("%w: the connection was reset", apns.ErrInDoubt)), ackLater(time.Second); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	log.SetOutput(os.Stderr) // before out is read
	if got := out.String(); !doubtLine.MatchString(got) || !strings.Contains(got, "the connection was reset") {
		t.Errorf("the log is %q, want the sequence number and the error", got)
	}
}

// Once the consumer is gone nothing is sent to it, and nothing is waited for.
func TestAbandonAcknowledgements(t *testing.T) {
	nc := startTestServer(t)
	a, err := newAcknowledger(nc, func(*job) {})
	if err != nil {
		t.Fatal(err)
	}
	sub, err := nc.SubscribeSync("acks")
	if err != nil {
		t.Fatal(err)
	}
	before, after := &job{reply: "acks"}, &job{reply: "acks"}
	a.send(before, ackDone)
	a.abandon()
	a.send(after, ackDone)
	if a.progress(&job{reply: "acks"}) {
		t.Error("a job is extended")
	}
	if left := a.close(nil); left != 0 {
		t.Errorf("%d acknowledgements are waited for, want none", left)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := sub.Pending(); n != 1 {
		t.Errorf("%d acknowledgements were sent, want 1", n)
	}
}
