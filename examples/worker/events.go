package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// An event says what became of a message that was not accepted. The message is acknowledged
// once JetStream has stored the event.
type event struct {
	job     *job
	subject string
	body    []byte
	reason  string
	ack     string
}

// publishEvents publishes events until the channel is closed. An event that cannot be stored
// has its message delivered once more. A message to park would then be pushed once more, so its
// event is repeated until it is stored or ctx ends.
func (w *worker) publishEvents(ctx context.Context) {
	for e := range w.events {
		err := w.publishEvent(ctx, e)
		for err != nil && e.subject == subjectParked && ctx.Err() == nil {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			err = w.publishEvent(ctx, e)
		}
		if err != nil {
			w.retry(e.job, 0, backOff(e.job.delivered))
			continue
		}
		w.acks.send(e.job, e.ack)
	}
}

// publishEvent publishes an event. To repeat it within two minutes stores it once.
func (w *worker) publishEvent(ctx context.Context, e event) error {
	m := &nats.Msg{Subject: e.subject, Data: e.body, Header: nats.Header{}}
	m.Header.Set(headerReason, e.reason)
	m.Header.Set(headerSequence, strconv.FormatUint(e.job.sequence, 10))
	ctx, cancel := context.WithTimeout(ctx, publishWait)
	defer cancel()
	id := fmt.Sprintf("%s-%d-%d", e.subject, w.queue.created.UnixNano(), e.job.sequence)
	_, err := w.queue.js.PublishMsg(ctx, m, jetstream.WithMsgID(id))
	if err != nil {
		slog.Warn("cannot publish what became of a message", "subject", e.subject, "sequence", e.job.sequence, "error", err)
	}
	return err
}

// publishWait is how long JetStream may take to store an event. A worker that drains waits as
// long for all of its events together.
const publishWait = 5 * time.Second

// A deadToken is published on subjectDead.
type deadToken struct {
	Token  string    `json:"token"`
	Topic  string    `json:"topic,omitempty"`
	DeadAt time.Time `json:"dead_at"`
}

// A tokenStore is where device tokens are kept.
type tokenStore interface {
	// Remove removes the token, unless the app registered it after deadAt: then the device
	// has the app once more. In SQL: DELETE ... WHERE token = ? AND registered_at <= ?.
	Remove(ctx context.Context, token string, deadAt time.Time) error
}

// forgetTokens removes dead tokens from a store until ctx ends. It is an example of a
// consumer of subjectDead: a program of its own, or a goroutine of whatever has the
// database.
func forgetTokens(ctx context.Context, js jetstream.JetStream, store tokenStore) error {
	consumer, err := js.CreateOrUpdateConsumer(ctx, eventStream, jetstream.ConsumerConfig{
		Durable:       "tokens",
		FilterSubject: subjectDead,
		AckPolicy:     jetstream.AckExplicitPolicy,
	})
	if err != nil {
		return err
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		var dead deadToken
		if json.Unmarshal(m.Data(), &dead) != nil {
			m.TermWithReason("it is not the JSON form of a dead token")
			return
		}
		if err := store.Remove(ctx, dead.Token, dead.DeadAt); err != nil {
			slog.Warn("cannot remove a dead token", "error", err)
			m.NakWithDelay(time.Second)
			return
		}
		m.Ack()
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	consuming.Drain()
	<-consuming.Closed()
	return nil
}
