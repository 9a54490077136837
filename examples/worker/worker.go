package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
)

// A pusher is an *apns.Client, or what a benchmark puts in its place.
type pusher interface {
	PushAll(context.Context, iter.Seq[*apns.Message]) iter.Seq[apns.Result]
	Shutdown(context.Context) error
	Close() error
}

// An inDoubtPolicy says what becomes of a message in doubt.
type inDoubtPolicy string

const (
	inDoubtRedeliver inDoubtPolicy = "redeliver" // send it once more: it may arrive twice
	inDoubtAck       inDoubtPolicy = "ack"       // count it as accepted: it may never have arrived
	inDoubtPark      inDoubtPolicy = "park"      // publish it on subjectParked
)

// A worker takes messages from a queue, pushes them, and acknowledges each as its outcome
// says.
type worker struct {
	queue   *queue
	client  pusher
	inDoubt inDoubtPolicy
	max     int           // messages that it holds; the other half of the back-pressure is queueSettings.pending
	grace   time.Duration // from SIGTERM on

	acks     *acknowledger
	events   chan event
	draining atomic.Bool
	fetched  atomic.Int64 // when fetch was last known to run, in Unix seconds
	metrics  *metrics

	mu   sync.Mutex // protects what follows
	held map[*job]struct{}
	room chan struct{} // has a value when a job was released
}

// A job is a message of the queue on its way. The Value of its message is the job.
type job struct {
	sequence  uint64 // in the stream
	delivered uint64 // how often, this time included
	reply     string // the subject of acknowledgements
	data      []byte
	extended  time.Time // when AckWait began; worker.mu protects it
	message   apns.Message
	resolved  bool // its acknowledgement is on its way; acknowledger.mu protects it
}

// newWorker returns a worker that has yet to run. It needs room for at least one message.
func newWorker(q *queue, client pusher, m *metrics, inDoubt inDoubtPolicy, room int, grace time.Duration) (*worker, error) {
	w := &worker{
		queue: q, client: client, metrics: m, inDoubt: inDoubt, max: room, grace: grace,
		events: make(chan event, room),
		held:   make(map[*job]struct{}),
		room:   make(chan struct{}, 1),
	}
	w.fetched.Store(time.Now().Unix())
	var err error
	w.acks, err = newAcknowledger(q.nc, w.release)
	return w, err
}

// run works until ctx ends, and then drains: it takes nothing more, waits for the outcomes of
// what it has pushed, gives the rest back, and returns when all acknowledgements are
// confirmed. It takes grace at most, and up to ten seconds more where NATS does not answer. It
// drains, and returns an error, if the queue does not exist any more: a worker that starts
// creates it.
//
// A nak that is not confirmed in time is no error, but a warning in the log: if JetStream does
// not have it, the message is delivered after AckWait.
func (w *worker) run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	taken := make(chan *job, w.max)
	var gone error
	var fetching, pushing, publishing, extending sync.WaitGroup
	fetching.Go(func() {
		defer stop()
		if gone = w.fetch(ctx, taken); gone != nil {
			w.acks.abandon()
		}
	})
	pushing.Go(func() {
		// This context has nothing to do with ctx: if it ended, what is in flight would be
		// in doubt.
		for r := range w.client.PushAll(context.Background(), w.unexpired(ctx, taken)) {
			w.resolve(r)
		}
	})
	publishContext, cancelPublishing := context.WithCancel(context.Background())
	defer cancelPublishing()
	for range 4 {
		publishing.Go(func() { w.publishEvents(publishContext) })
	}
	drained := make(chan struct{})
	extending.Go(func() { w.extend(drained) })

	<-ctx.Done()
	w.draining.Store(true)
	bound, cancel := context.WithTimeout(context.Background(), w.grace)
	defer cancel()
	if err := w.client.Shutdown(bound); err != nil {
		slog.Warn("the server has not answered in time", "error", err)
		w.client.Close()
	}
	pushing.Wait()
	fetching.Wait()
	close(taken)
	for j := range taken { // PushAll has not asked for these
		w.retry(j, 0, 0)
	}
	close(w.events)
	time.AfterFunc(publishWait, cancelPublishing)
	publishing.Wait()
	bound, cancelAcks := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancelAcks()
	left := w.acks.close(bound.Done())
	close(drained)
	extending.Wait()
	if gone != nil {
		return gone
	}
	if left > 0 {
		return fmt.Errorf("%d acknowledgements are not confirmed: those messages are delivered once more", left)
	}
	return nil
}

// fetch takes messages from the queue, no more than the worker has room for: so each of them
// is known to extend. It returns an error if the queue is gone.
func (w *worker) fetch(ctx context.Context, taken chan<- *job) error {
	for {
		n := w.waitForRoom(ctx)
		if n == 0 {
			return nil
		}
		batch, err := w.queue.consumer.Fetch(n, jetstream.FetchMaxWait(time.Second)) // run waits so long at SIGTERM
		if err == nil {
			for m := range batch.Messages() {
				w.take(m, taken)
			}
			err = batch.Error()
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		slog.Warn("cannot fetch from the queue", "error", err)
		if err := w.queue.check(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// waitForRoom waits until a quarter of the room is free, and returns how much is. It returns 0
// if ctx ends.
func (w *worker) waitForRoom(ctx context.Context) int {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for ctx.Err() == nil {
		w.fetched.Store(time.Now().Unix())
		if free := w.max - w.holding(); free >= max(1, w.max/4) {
			return free
		}
		select {
		case <-w.room:
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	return 0
}

// isStuck reports whether fetch does not run, though it should.
func (w *worker) isStuck() bool {
	return !w.draining.Load() && time.Since(time.Unix(w.fetched.Load(), 0)) > stuckAfter
}

// stuckAfter is more than a round of fetch takes, also if NATS does not answer.
const stuckAfter = time.Minute

func (w *worker) holding() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

// release is called when the acknowledgement of a job is confirmed.
func (w *worker) release(j *job) {
	w.mu.Lock()
	delete(w.held, j)
	w.mu.Unlock()
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// take makes a job of a message, or rejects it.
func (w *worker) take(m jetstream.Msg, taken chan<- *job) {
	meta, err := m.Metadata()
	if err != nil {
		slog.Error("this is no message of JetStream", "subject", m.Subject(), "error", err)
		return
	}
	j := &job{sequence: meta.Sequence.Stream, delivered: meta.NumDelivered, reply: m.Reply(), data: m.Data(), extended: time.Now()}
	w.mu.Lock()
	w.held[j] = struct{}{}
	w.mu.Unlock()
	w.metrics.taken.Add(1)
	if j.delivered > 1 {
		w.metrics.redelivered.Add(1)
	}
	// The error of json.Unmarshal may quote what is secret.
	if json.Unmarshal(j.data, &j.message) != nil {
		w.reject(j, "it is not the JSON form of a message")
		return
	}
	p := &j.message
	if p.APNsID == "" {
		p.APNsID = messageID(w.queue.created, j.sequence)
	}
	p.Value = j
	taken <- j // which has room for all that are held
}

// unexpired yields the messages of jobs until ctx ends, and rejects those that have expired:
// the package would have the server try once. It looks at the Expiry here, and not in take,
// because PushAll asks for a message when it has room for it, which may be long after. What
// expires after that is the Client's to find (ErrExpired), but for an instant in between.
func (w *worker) unexpired(ctx context.Context, taken <-chan *job) iter.Seq[*apns.Message] {
	return func(yield func(*apns.Message) bool) {
		for ctx.Err() == nil {
			select {
			case j := <-taken:
				if e := j.message.Expiry; e.Unix() > 0 && !e.After(time.Now()) {
					w.reject(j, "it expired in the queue")
				} else if !yield(&j.message) {
					return
				}
			case <-ctx.Done():
			}
		}
	}
}

// messageID returns a UUID that is the same each time that a message is delivered, on any
// worker: so what arrives twice can be told from what was sent twice.
func messageID(created time.Time, sequence uint64) string {
	b := binary.BigEndian.AppendUint64([]byte(pushStream), uint64(created.UnixNano()))
	u := sha256.Sum256(binary.BigEndian.AppendUint64(b, sequence))
	u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // version 8, of RFC 9562
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// resolve acknowledges a job as the outcome of its message says.
func (w *worker) resolve(r apns.Result) {
	j := r.Message.Value.(*job)
	advice := apns.Advise(r.Err)
	w.metrics.resolved[advice.Action].Add(1)
	if _, answered := errors.AsType[*apns.PushError](r.Err); answered || r.Err == nil { // so the server takes the credentials
		w.metrics.refused.Store(false)
	}
	switch advice.Action {
	case apns.ActionDone:
		w.acks.send(j, ackDone)
	case apns.ActionForget:
		deadAt := advice.DeadAt
		if deadAt.IsZero() {
			deadAt = time.Now()
		}
		body, _ := json.Marshal(deadToken{j.message.Token, j.message.Topic, deadAt}) // which has no error
		w.events <- event{j, subjectDead, body, r.Err.Error(), ackDone}
	case apns.ActionDrop:
		w.reject(j, r.Err.Error())
	case apns.ActionResend:
		w.retry(j, advice.After, backOff(j.delivered))
	case apns.ActionFix: // never a reason to give a message up
		if !w.metrics.refused.Swap(true) {
			slog.Error("nothing can be sent until this is corrected", "error", r.Err)
		}
		w.retry(j, 0, time.Minute)
	case apns.ActionDecide:
		slog.Warn("in doubt", "sequence", j.sequence, "policy", w.inDoubt, "error", r.Err)
		switch w.inDoubt {
		case inDoubtAck:
			w.acks.send(j, ackDone)
		case inDoubtPark:
			w.events <- event{j, subjectParked, j.data, r.Err.Error(), ackDone}
		default:
			w.retry(j, 0, backOff(j.delivered))
		}
	}
}

// reject gives a message up, since it would fail each time.
func (w *worker) reject(j *job, reason string) {
	w.metrics.rejected.Add(1)
	w.events <- event{j, subjectRejected, j.data, reason, ackNever(reason)}
}

// retry has a message delivered once more: after what the server asked for. If the server did
// not ask, it is after a back-off, unless this worker ends: then another one may have the
// message at once.
//
// The one bound of what the server asked for is maxAge, at which the stream removes a message
// anyway. JetStream cannot count with a delay of centuries: it would deliver at once.
func (w *worker) retry(j *job, asked, backOff time.Duration) {
	after := backOff
	switch {
	case asked > 0:
		after = min(asked, w.queue.maxAge)
	case w.draining.Load():
		after = 0
	}
	w.acks.send(j, ackLater(after))
}

// backOff returns how long a message waits before it is delivered once more.
func backOff(delivered uint64) time.Duration {
	return min(time.Second<<min(delivered-1, 6), time.Minute)
}

// extend tells JetStream that what is held is still in progress, so that no other worker
// gets it.
func (w *worker) extend(drained <-chan struct{}) {
	ticker := time.NewTicker(w.queue.ackWait / 4)
	defer ticker.Stop()
	for {
		select {
		case <-drained:
			return
		case now := <-ticker.C:
			for _, j := range w.late(now) {
				if w.acks.progress(j) {
					w.metrics.extended.Add(1)
				}
			}
		}
	}
}

// late returns the jobs for which AckWait began a quarter of it ago, or earlier. It begins
// for them now.
func (w *worker) late(now time.Time) (late []*job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for j := range w.held {
		if now.Sub(j.extended) >= w.queue.ackWait/4 {
			j.extended = now
			late = append(late, j)
		}
	}
	return late
}
