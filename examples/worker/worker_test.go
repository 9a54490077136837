package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// With WORKER_MAIN set the test binary is the program: the chaos test kills it.
func TestMain(m *testing.M) {
	if os.Getenv("WORKER_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestDemo(t *testing.T) {
	s, err := parse("", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := demo(t.Context(), &out, s); err != nil {
		t.Fatal(err)
	}
	// One of the ten dead tokens was registered after it was dead.
	want := "published 1000 messages\naccepted: 986\ndead: 10\nrejected: 4\ntokens left: 991 (one of the dead was registered again)\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// A rig is a queue and a push server in this process, and a worker between them.
type rig struct {
	*worker
	t      testing.TB
	client *apns.Client
	server *apnstest.Server
	stop   context.CancelFunc
	done   chan error
}

func newRig(t testing.TB, handler func(*apns.Message) error, change ...func(*rig)) *rig {
	t.Helper()
	return newRigWith(t, startTestServer(t), handler, change...)
}

func newRigWith(t testing.TB, nats *nats.Conn, handler func(*apns.Message) error, change ...func(*rig)) *rig {
	t.Helper()
	js, err := jetstream.New(nats)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, server: apnstest.NewUnstartedServer(handler), done: make(chan error, 1)}
	m := new(metrics)
	r.client = &apns.Client{Attempts: 1, OnAttempt: m.attempts.observe}
	q := &queue{nc: nats, js: js}
	if r.worker, err = newWorker(q, r.client, m, inDoubtRedeliver, 4096, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.setAckWait(time.Minute)
	for _, f := range change {
		f(r)
	}
	r.server.Start()
	t.Cleanup(r.server.Close)
	r.client.Addr, r.client.Config = r.server.HTTP2Addr, r.server.TokenConfig()
	return r
}

func startTestServer(t testing.TB) *nats.Conn {
	t.Helper()
	s, err := startServer("127.0.0.1", -1, t.TempDir()) // any free port
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// setAckWait opens the queue.
func (r *rig) setAckWait(d time.Duration) {
	r.t.Helper()
	q, err := openQueue(r.t.Context(), r.queue.nc, r.queue.js, queueSettings{ackWait: d, pending: 20_000, maxAge: time.Hour, replicas: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	r.queue = q
}

// start runs the worker. It is stopped at the end of the test, if not before.
func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.run(ctx) }()
	r.t.Cleanup(cancel)
}

// drain is SIGTERM.
func (r *rig) drain() {
	r.t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		r.t.Fatal("the worker does not drain")
	}
}

func (r *rig) publish(bodies ...[]byte) {
	r.t.Helper()
	p := &publisher{js: r.queue.js}
	for i, b := range bodies {
		if err := p.publish(b, fmt.Sprint(i)); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := p.wait(); err != nil {
		r.t.Fatal(err)
	}
}

// left returns how many messages are in a stream.
func (r *rig) left(stream string) uint64 {
	r.t.Helper()
	s, err := r.queue.js.Stream(context.Background(), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// waitFor waits until a condition holds.
func (r *rig) waitFor(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("after 30 seconds: %s is not so", what)
		}
	}
}

func (r *rig) waitUntilEmpty() {
	r.t.Helper()
	r.waitFor("the queue is empty", func() bool { return r.left(pushStream) == 0 })
}

func encode(t testing.TB, m apns.Message) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each outcome has its acknowledgement, and leaves a trace on its subject.
func TestOutcomes(t *testing.T) {
	hello := apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello")}
	with := func(change func(*apns.Message)) []byte {
		m := hello
		change(&m)
		return encode(t, m)
	}
	// Each answers once; then messages are accepted.
	first := func(err error) func(*apns.Message) error {
		var n atomic.Int64
		return func(*apns.Message) error {
			if n.Add(1) == 1 {
				return err
			}
			return nil
		}
	}
	lost := apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST} // accepted, and the answer is lost
	policy := func(p inDoubtPolicy) func(*rig) { return func(r *rig) { r.inDoubt = p } }
	tests := []struct {
		name     string
		body     []byte
		handler  func(*apns.Message) error
		change   func(*rig)
		accepted int
		subject  string // of the event, if there is one
		reason   string // begins with
		atLeast  time.Duration
	}{
		{name: "accepted", accepted: 1},
		{name: "dead", handler: first(&apns.PushError{HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: time.Unix(1700000000, 0)}), subject: subjectDead, reason: "apns: message rejected: Unregistered"},
		{name: "rejected", handler: first(apns.ReasonBadDeviceToken), subject: subjectRejected, reason: "apns: message rejected: BadDeviceToken"},
		{name: "invalid", body: with(func(m *apns.Message) { m.Token = "token" }), subject: subjectRejected, reason: "apns: token has 't'"},
		{name: "undecodable", body: []byte(`{"token": 7}`), subject: subjectRejected, reason: "it is not the JSON form"},
		{name: "expired", body: with(func(m *apns.Message) { m.Expiry = time.Now().Add(-time.Minute) }), subject: subjectRejected, reason: "it expired in the queue"},
		{name: "now or never", body: with(func(m *apns.Message) { m.Expiry = time.Unix(0, 0) }), accepted: 1},
		{name: "throttled", handler: first(&apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 3 * time.Second}), accepted: 1, atLeast: 3 * time.Second},
		{name: "not sent", handler: first(apnstest.Fault{End: apnstest.EndRefusedStream}), accepted: 1, atLeast: time.Second},
		{name: "in doubt, redeliver", handler: first(lost), accepted: 2, atLeast: time.Second},
		{name: "in doubt, ack", handler: first(lost), change: policy(inDoubtAck), accepted: 1},
		{name: "in doubt, park", handler: first(lost), change: policy(inDoubtPark), accepted: 1, subject: subjectParked, reason: "apns: in doubt"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := test.body
			if body == nil {
				body = encode(t, hello)
			}
			r := newRig(t, test.handler)
			if test.change != nil {
				test.change(r)
			}
			terminated, err := r.queue.nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>")
			if err != nil {
				t.Fatal(err)
			}
			r.publish(body)
			start := time.Now()
			r.start()
			r.waitUntilEmpty()
			if took := time.Since(start); took < test.atLeast {
				t.Errorf("it took %v, want at least %v", took, test.atLeast)
			}
			r.drain()
			if got := r.server.Count(apnstest.Accepted); got != test.accepted {
				t.Errorf("the server accepted it %d times, want %d", got, test.accepted)
			}
			ids := make(map[string]bool)
			for _, m := range r.server.Messages(apnstest.Accepted) {
				ids[m.APNsID] = true
			}
			if len(ids) > 1 {
				t.Errorf("it had the IDs %v, want the same each time", ids)
			}
			r.wantEvent(test.subject, test.reason, body)
			r.wantTerminated(terminated, test.subject == subjectRejected, test.reason)
		})
	}
}

// wantEvent checks that there is one event, or none if the subject is empty.
func (r *rig) wantEvent(subject, reason string, body []byte) {
	r.t.Helper()
	stream, err := r.queue.js.Stream(r.t.Context(), eventStream)
	if err != nil {
		r.t.Fatal(err)
	}
	n := stream.CachedInfo().State.Msgs
	if subject == "" {
		if n != 0 {
			r.t.Errorf("there are %d events, want none", n)
		}
		return
	}
	m, err := stream.GetMsg(r.t.Context(), 1)
	if err != nil || n != 1 {
		r.t.Fatalf("there are %d events (%v), want 1", n, err)
	}
	if got := m.Header.Get(headerReason); m.Subject != subject || !strings.HasPrefix(got, reason) {
		r.t.Errorf("the event is %s: %s, want %s: %s", m.Subject, got, subject, reason)
	}
	if subject == subjectDead {
		body = []byte(`{"token":"c0ffee","dead_at":"2023-11-14T22:13:20Z"}`)
	}
	if !bytes.Equal(m.Data, body) {
		r.t.Errorf("the event has %s, want %s", m.Data, body)
	}
}

// wantTerminated checks that JetStream says of one message, or of none, that it was terminated,
// and why. The worker has drained.
func (r *rig) wantTerminated(sub *nats.Subscription, want bool, reason string) {
	r.t.Helper()
	// JetStream says so about when it confirms the acknowledgement, so none may be late.
	wait := 500 * time.Millisecond
	if want {
		wait = 10 * time.Second
	}
	m, err := sub.NextMsg(wait)
	if err != nil {
		if want {
			r.t.Errorf("JetStream says nothing (%v), want that the message was terminated", err)
		}
		return
	}
	var got struct {
		Sequence uint64 `json:"stream_seq"`
		Reason   string `json:"reason"`
	}
	if err := json.Unmarshal(m.Data, &got); err != nil {
		r.t.Fatal(err)
	}
	if !want || got.Sequence != 1 || !strings.HasPrefix(got.Reason, reason) {
		r.t.Errorf("JetStream says that message %d was terminated: %s; want %v: %s", got.Sequence, got.Reason, want, reason)
	}
}

// Several apps of a team share a worker: each message arrives with its own topic, and one
// without a topic is for the app of -bundle-id.
func TestTopics(t *testing.T) {
	r := newRig(t, nil)
	topics := map[string]string{"aa": "com.example.first", "bb": "com.example.second", "cc": ""}
	var bodies [][]byte
	for token, topic := range topics {
		bodies = append(bodies, encode(t, apns.Message{Token: token, Topic: topic, Payload: apns.AlertPayload("Hello")}))
	}
	r.publish(bodies...)
	r.start()
	r.waitUntilEmpty()
	r.drain()
	topics["cc"] = apnstest.BundleID
	got := make(map[string]string)
	for _, m := range r.server.Messages(apnstest.Accepted) {
		got[m.Token] = m.Topic
	}
	if !maps.Equal(got, topics) {
		t.Errorf("the server got the topics %v, want %v", got, topics)
	}
}

// The consumer has what the flags say. A message is delivered as often as it takes, and not to
// another worker while the Client may push it.
func TestConsumer(t *testing.T) {
	r := newRig(t, nil)
	key := filepath.Join(t.TempDir(), "key.p8")
	if err := os.WriteFile(key, r.server.Certificates().AuthKey, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flags := range []string{"", "-ack-wait=10s -pending=7 -max-age=3m"} {
		s, err := parse("", append(strings.Fields(flags), "-nats=x", "-p8", key, "-key-id", apnstest.KeyID, "-team-id", apnstest.TeamID))
		if err != nil {
			t.Fatal(err)
		}
		client, err := s.client(r.metrics)
		if err != nil {
			t.Fatal(err)
		}
		q, err := openQueue(t.Context(), r.queue.nc, r.queue.js, s.queueSettings)
		if err != nil {
			t.Fatal(err)
		}
		info, err := q.consumer.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := info.Config
		if got.AckPolicy != jetstream.AckExplicitPolicy || got.MaxDeliver != -1 {
			t.Errorf("%q: AckPolicy is %v and MaxDeliver %d, want explicit and -1: no limit", flags, got.AckPolicy, got.MaxDeliver)
		}
		if got.MaxAckPending != s.pending || got.AckWait != s.ackWait || q.ackWait != s.ackWait {
			t.Errorf("%q: MaxAckPending is %d and AckWait %v, want %d and %v", flags, got.MaxAckPending, got.AckWait, s.pending, s.ackWait)
		}
		if client.Timeout <= 0 || client.Timeout >= got.AckWait {
			t.Errorf("%q: the Client's Timeout is %v, want one that is less than AckWait, %v", flags, client.Timeout, got.AckWait)
		}
		stream, err := q.js.Stream(t.Context(), pushStream)
		if err != nil {
			t.Fatal(err)
		}
		if age := stream.CachedInfo().Config.MaxAge; age != s.maxAge || q.maxAge != s.maxAge {
			t.Errorf("%q: MaxAge is %v, want %v", flags, age, s.maxAge)
		}
	}
}

// Credentials that are refused are no reason to give a message up.
func TestRefused(t *testing.T) {
	var fixed atomic.Bool
	r := newRig(t, func(*apns.Message) error {
		if fixed.Load() {
			return nil
		}
		return apns.ReasonInvalidProviderToken
	})
	r.publish(demoMessage(1), demoMessage(2))
	r.start()
	r.waitFor("the worker is refused", func() bool { return r.metrics.resolved[apns.ActionFix].Load() == 2 })
	var out strings.Builder
	r.write(&out)
	if !strings.Contains(out.String(), "\nworker_refused 1\n") {
		t.Errorf("the metrics are %s, want worker_refused 1", out.String())
	}
	if _, err := r.queue.js.Publish(t.Context(), subjectSend, encode(t, apns.Message{Token: "token", Payload: apns.AlertPayload("Hello")})); err != nil {
		t.Fatal(err)
	}
	r.waitFor("a message that breaks a rule is rejected", func() bool { return r.metrics.rejected.Load() == 1 })
	if !r.metrics.refused.Load() {
		t.Error("the worker is not refused any more, though no server has taken a message")
	}
	r.waitFor("it holds nothing", func() bool { return r.holding() == 0 })
	r.drain()
	if left, events := r.left(pushStream), r.left(eventStream); left != 2 || events != 1 {
		t.Errorf("%d messages are left, and %d events, want 2 and 1", left, events)
	}
}

// After SIGTERM each message was accepted and is gone, or is in the queue and was not sent.
func TestDrain(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			t.Parallel()
			var answered atomic.Int64
			r := newRig(t, func(*apns.Message) error {
				if answered.Add(1) > 500 && silent {
					return apnstest.Fault{}
				}
				return nil
			}, func(r *rig) {
				r.server.Latency, r.server.StreamLimit = 50*time.Millisecond, 100
				if r.client.MaxConns = 1; silent {
					r.grace = time.Second
				}
				r.setAckWait(time.Hour)
			})
			const n = 5000
			bodies := make([][]byte, n)
			for i := range bodies {
				bodies[i] = encode(t, apns.Message{Token: demoToken(i), Payload: apns.AlertPayload("Hello")})
			}
			r.publish(bodies...)
			r.start()
			r.waitFor("500 are answered", func() bool { return answered.Load() > 500 })
			r.drain()
			accepted := r.server.Count(apnstest.Accepted)
			inDoubt := int(r.metrics.resolved[apns.ActionDecide].Load())
			left := int(r.left(pushStream))
			if accepted+left != n {
				t.Errorf("%d were accepted, and %d are left, want %d together", accepted, left, n)
			}
			// Another worker gets what is left at once, without waiting for AckWait.
			batch, err := r.queue.consumer.Fetch(left, jetstream.FetchMaxWait(30*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			again := 0
			for range batch.Messages() {
				again++
			}
			if again != left {
				t.Errorf("%d are delivered to another worker, want %d", again, left)
			}
			switch {
			case !silent && inDoubt != 0:
				t.Errorf("%d are in doubt, want none", inDoubt)
			case silent && (inDoubt == 0 || inDoubt > 100):
				t.Errorf("%d are in doubt, want those in flight, of which there are 100 at most", inDoubt)
			}
		})
	}
}

// A worker that drains gives a message back at once, but not before the server wants it.
func TestDrainThrottled(t *testing.T) {
	var seen atomic.Int64
	r := newRig(t, func(*apns.Message) error {
		seen.Add(1)
		return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: 20 * time.Second}
	}, func(r *rig) { r.server.Latency = 500 * time.Millisecond })
	r.publish(demoMessage(1))
	r.start()
	r.waitFor("it is in flight", func() bool { return seen.Load() == 1 })
	r.drain()
	batch, err := r.queue.consumer.Fetch(1, jetstream.FetchMaxWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for range batch.Messages() {
		t.Error("it is delivered at once, though the server said 429 and Retry-After: 20")
	}
}

// A worker that drains is soon done, though NATS does not answer.
func TestDrainWithoutNATS(t *testing.T) {
	s, err := startServer("127.0.0.1", -1, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	nc, _, err := connect(s.ClientURL(), "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	r := newRigWith(t, nc, func(*apns.Message) error { return apns.ReasonBadDeviceToken }, func(r *rig) {
		r.server.Latency, r.grace = 20*time.Millisecond, time.Second // so that most answers come when NATS is gone
	})
	const n = 40
	bodies := make([][]byte, n)
	for i := range bodies {
		bodies[i] = encode(t, apns.Message{Token: demoToken(i), Payload: apns.AlertPayload("Hello")})
	}
	r.publish(bodies...)
	r.start()
	r.waitFor("all are taken", func() bool { return r.metrics.taken.Load() == n })
	s.Shutdown()
	s.WaitForShutdown()
	r.waitFor("all are rejected", func() bool { return r.metrics.rejected.Load() == n })
	start := time.Now()
	r.stop()
	<-r.done // with the error that acknowledgements are not confirmed
	if took, most := time.Since(start), r.grace+10*time.Second; took > most+5*time.Second {
		t.Errorf("it took %v, want %v at most", took, most)
	}
}

// A message to park is not pushed once more, though what says so cannot be stored at first.
func TestParkLater(t *testing.T) {
	var seen atomic.Int64
	r := newRig(t, func(*apns.Message) error {
		if seen.Add(1) == 1 {
			return apnstest.Fault{Err: apns.StatusNoError, End: apnstest.EndRST} // accepted, and the answer is lost
		}
		return nil
	}, func(r *rig) { r.inDoubt = inDoubtPark })
	if err := r.queue.js.DeleteStream(t.Context(), eventStream); err != nil {
		t.Fatal(err)
	}
	r.publish(demoMessage(1))
	r.start()
	r.waitFor("it is in doubt", func() bool { return r.metrics.resolved[apns.ActionDecide].Load() == 1 })
	time.Sleep(3 * time.Second)
	if _, err := openStreams(t.Context(), r.queue.js, queueSettings{maxAge: time.Hour, replicas: 1}); err != nil {
		t.Fatal(err)
	}
	r.waitUntilEmpty()
	r.drain()
	if accepted, parked := r.server.Count(apnstest.Accepted), r.left(eventStream); accepted != 1 || parked != 1 {
		t.Errorf("it arrived %d times, and was parked %d times, want 1 and 1", accepted, parked)
	}
}

// A message that expires while it waits for room in the Client is not pushed.
func TestExpiresBeforeItIsPushed(t *testing.T) {
	expiry := time.Now().Add(2 * time.Second).Truncate(time.Second)
	slow := func(*apns.Message) error {
		return apnstest.Fault{Err: apns.StatusNoError, Delay: max(0, time.Until(expiry)+200*time.Millisecond)}
	}
	r := newRig(t, slow, func(r *rig) { r.client.MaxInFlight = 1 })
	late := apns.Message{Token: "c0ffee", Payload: apns.AlertPayload("Hello"), Expiry: expiry}
	r.publish(demoMessage(1), demoMessage(2), encode(t, late))
	r.start()
	r.waitUntilEmpty()
	r.drain()
	if got := r.server.Count(apnstest.Accepted); got != 2 {
		t.Errorf("the server accepted %d messages, want 2", got)
	}
	r.wantEvent(subjectRejected, "it expired in the queue", encode(t, late))
}

// A worker whose queue is deleted ends with an error, so that it is started again: that
// creates the queue.
func TestQueueIsGone(t *testing.T) {
	for name, remove := range map[string]func(context.Context, *queue) error{
		"consumer": func(ctx context.Context, q *queue) error { return q.js.DeleteConsumer(ctx, pushStream, consumerName) },
		"stream":   func(ctx context.Context, q *queue) error { return q.js.DeleteStream(ctx, pushStream) },
		"stream, and another is created": func(ctx context.Context, q *queue) error {
			if err := q.js.DeleteStream(ctx, pushStream); err != nil {
				return err
			}
			_, err := openQueue(ctx, q.nc, q.js, queueSettings{ackWait: time.Minute, pending: 10, maxAge: time.Hour, replicas: 1})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil, func(r *rig) { r.server.Latency = 500 * time.Millisecond })
			r.publish(demoMessage(1))
			r.start()
			r.waitFor("a message is taken", func() bool { return r.metrics.taken.Load() == 1 })
			if err := remove(t.Context(), r.queue); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-r.done:
				if err == nil || !strings.Contains(err.Error(), pushStream) {
					t.Errorf("got %v, want an error that names the stream", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the worker does not end")
			}
			if got := r.server.Count(apnstest.Accepted); got != 1 {
				t.Errorf("the server accepted %d messages, want 1: what is in flight is waited for", got)
			}
		})
	}
}

// What waits for longer than AckWait is extended, and so is delivered once.
func TestExtended(t *testing.T) {
	r := newRig(t, nil, func(r *rig) {
		r.server.Latency = 3 * time.Second
		r.setAckWait(2 * time.Second)
	})
	r.publish(demoMessage(1), demoMessage(2))
	r.start()
	r.waitUntilEmpty()
	r.drain()
	if got := r.metrics.redelivered.Load(); got != 0 {
		t.Errorf("%d were delivered twice, want none", got)
	}
	if got := r.server.Count(apnstest.Accepted); got != 2 {
		t.Errorf("the server accepted %d, want 2", got)
	}
}

// A token stays if the app registered it after it was dead.
func TestForgetTokens(t *testing.T) {
	deadAt := time.Unix(1700000000, 0)
	store := demoStore{"aa": deadAt.Add(-time.Hour), "bb": deadAt.Add(time.Hour)}
	for _, token := range []string{"aa", "bb", "cc"} {
		store.Remove(t.Context(), token, deadAt)
	}
	if _, ok := store["bb"]; len(store) != 1 || !ok {
		t.Errorf("got %v, want bb alone", store)
	}
}
