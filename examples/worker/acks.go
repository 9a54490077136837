package main

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// The acknowledgements of JetStream. The source is "Acknowledging Messages" in the
// documentation of NATS.
const (
	ackDone     = "+ACK"
	ackProgress = "+WPI"
)

func ackLater(after time.Duration) string {
	if after <= 0 {
		return "-NAK"
	}
	return fmt.Sprintf(`-NAK {"delay": %d}`, after.Nanoseconds())
}

// isLater reports whether an acknowledgement is one of ackLater.
func isLater(body string) bool { return strings.HasPrefix(body, "-NAK") }

func ackNever(reason string) string { return "+TERM " + reason }

// An acknowledger sends acknowledgements, and repeats each until JetStream has confirmed it. An
// acknowledgement that is lost with a connection would have the message sent twice. A nak is
// not repeated: if it is lost, the message is delivered after AckWait. So a job whose nak has
// no confirmation after two to three seconds is released, with a warning.
// (jetstream.Msg.DoubleAck does the same, but waits for each.)
type acknowledger struct {
	nc        *nats.Conn
	confirmed func(*job)
	inbox     string // before the number of an acknowledgement
	sub       *nats.Subscription
	stop      chan struct{}
	repeating sync.WaitGroup

	mu        sync.Mutex // protects what follows
	last      uint64
	open      map[uint64]*pendingAck
	abandoned bool
}

type pendingAck struct {
	job   *job
	body  []byte
	sent  time.Time
	tries int

	// repeatable is false for a nak that JetStream may have: repeated, it would have the
	// message delivered to one worker while another has it.
	repeatable bool
}

const (
	repeatAfter = 2 * time.Second
	maxTries    = 30
)

func newAcknowledger(nc *nats.Conn, confirmed func(*job)) (*acknowledger, error) {
	a := &acknowledger{nc: nc, confirmed: confirmed, inbox: nats.NewInbox() + ".", stop: make(chan struct{}), open: make(map[uint64]*pendingAck)}
	var err error
	if a.sub, err = nc.Subscribe(a.inbox+"*", a.confirm); err != nil {
		return nil, err
	}
	a.sub.SetPendingLimits(-1, -1) // there is one confirmation for each message that a worker holds
	a.repeating.Go(a.repeat)
	return a, nil
}

// send sends the acknowledgement of a job.
func (a *acknowledger) send(j *job, body string) {
	p := &pendingAck{job: j, body: []byte(body), sent: time.Now(), tries: 1, repeatable: !isLater(body)}
	a.mu.Lock()
	j.resolved = true
	if a.abandoned {
		a.mu.Unlock()
		return
	}
	a.last++
	n := a.last
	a.open[n] = p
	a.mu.Unlock()
	a.publish(n, p)
}

// abandon forgets all acknowledgements, and sends none from now on. The consumer is gone; one
// that is created in its place could take them for those of its own messages.
func (a *acknowledger) abandon() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.abandoned = true
	clear(a.open)
}

// progress says that a job is in progress, so that its AckWait begins anew. It reports whether
// it did: after the acknowledgement of the job it does nothing, since AckWait would then take
// the place of a nak's delay. It publishes with mu held, so that send comes before or after.
func (a *acknowledger) progress(j *job) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if j.resolved || a.abandoned {
		return false
	}
	a.nc.Publish(j.reply, []byte(ackProgress))
	return true
}

// publish writes an acknowledgement. If that fails, or the connection is cut, repeat tries
// once more.
func (a *acknowledger) publish(n uint64, p *pendingAck) {
	a.nc.PublishRequest(p.job.reply, a.inbox+strconv.FormatUint(n, 10), p.body)
}

func (a *acknowledger) confirm(m *nats.Msg) {
	n, _ := strconv.ParseUint(strings.TrimPrefix(m.Subject, a.inbox), 10, 64)
	if m.Header.Get("Status") == "503" { // nobody has it: the consumer has no leader at this time
		a.mu.Lock()
		if p := a.open[n]; p != nil {
			p.repeatable = true
		}
		a.mu.Unlock()
		return
	}
	if p := a.take(n); p != nil {
		a.confirmed(p.job)
	}
}

func (a *acknowledger) take(n uint64) *pendingAck {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.open[n]
	delete(a.open, n)
	return p
}

// repeat repeats what is not confirmed. After maxTries it leaves a message to its AckWait.
func (a *acknowledger) repeat() {
	ticker := time.NewTicker(repeatAfter / 2)
	defer ticker.Stop()
	for {
		select {
		case <-a.stop:
			return
		case now := <-ticker.C:
			for n, p := range a.late(now) {
				if p.tries > maxTries {
					slog.Warn("an acknowledgement is not confirmed: the message may be delivered once more", "sequence", p.job.sequence)
					if p := a.take(n); p != nil {
						a.confirmed(p.job)
					}
					continue
				}
				a.publish(n, p)
			}
		}
	}
}

func (a *acknowledger) late(now time.Time) map[uint64]*pendingAck {
	a.mu.Lock()
	defer a.mu.Unlock()
	late := make(map[uint64]*pendingAck)
	for n, p := range a.open {
		if now.Sub(p.sent) >= repeatAfter {
			p.sent, p.tries = now, p.tries+1
			if !p.repeatable {
				p.tries = maxTries + 1
			}
			p.repeatable = !isLater(string(p.body))
			late[n] = p
		}
	}
	return late
}

// close waits until all acknowledgements are confirmed, and returns how many are not.
func (a *acknowledger) close(bound <-chan struct{}) int {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	left := a.waiting()
	for ended := false; left > 0 && !ended; left = a.waiting() {
		select {
		case <-ticker.C:
		case <-bound:
			ended = true
		}
	}
	close(a.stop)
	a.repeating.Wait()
	a.sub.Unsubscribe()
	return left
}

func (a *acknowledger) waiting() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.open)
}
