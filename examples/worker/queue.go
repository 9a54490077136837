package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The streams and their subjects. Names of streams are unique in an account of NATS.
const (
	pushStream      = "PUSH"          // messages to send; one that is acknowledged is removed
	eventStream     = "PUSH_EVENTS"   // what became of those that were not accepted
	subjectSend     = "push.send"     // a Message in its JSON form
	subjectDead     = "push.dead"     // a deadToken
	subjectRejected = "push.rejected" // a message that would fail each time, as it came; headerReason says why
	subjectParked   = "push.parked"   // a message in doubt, as it came, with -in-doubt park
	consumerName    = "workers"
	headerReason    = "Apns-Reason"
	headerSequence  = "Apns-Sequence" // of the message in pushStream
)

// A producer that repeats a Nats-Msg-Id within duplicatesWindow publishes once.
const duplicatesWindow = 2 * time.Minute

const maxReplicas = 5 // which JetStream sets

// A queue is the streams, and the consumer that all workers share.
type queue struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	consumer jetstream.Consumer
	ackWait  time.Duration
	maxAge   time.Duration
	created  time.Time // of pushStream: with a sequence number it identifies a message for good
}

// queueSettings are what all workers of a queue have to agree on.
type queueSettings struct {
	maxAge   time.Duration // how long a message may wait to be accepted
	ackWait  time.Duration // without a sign of the worker for so long, a message goes to another one
	pending  int           // messages that all workers together may have
	replicas int           // of the streams
}

// connect connects to NATS, and connects again whenever the connection is lost. A server that
// does not answer counts as disconnected after half a minute: three PINGs. The errors do not
// have the address, in which there may be a password.
func connect(address, name string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(address, nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond),
		nats.PingInterval(10*time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				slog.Warn("disconnected from NATS", "error", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { slog.Info("connected to NATS once more") }))
	if _, ok := errors.AsType[*url.Error](err); ok {
		return nil, nil, errors.New("-nats is not a URL, expected nats://host:4222")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	js, err := jetstream.New(nc)
	return nc, js, err
}

// openStreams creates the streams, unless they exist.
func openStreams(ctx context.Context, js jetstream.JetStream, s queueSettings) (jetstream.Stream, error) {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:     eventStream,
		Subjects: []string{subjectDead, subjectRejected, subjectParked},
		MaxAge:   7 * 24 * time.Hour,
		Replicas: s.replicas,
	})
	if err != nil {
		return nil, err
	}
	return js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:       pushStream,
		Subjects:   []string{subjectSend},
		Retention:  jetstream.WorkQueuePolicy,
		MaxAge:     s.maxAge,
		Duplicates: duplicatesWindow,
		Replicas:   s.replicas,
	})
}

// openQueue creates the streams and the consumer, unless they exist.
func openQueue(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, s queueSettings) (*queue, error) {
	stream, err := openStreams(ctx, js, s)
	if err != nil {
		return nil, err
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable:       consumerName,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.ackWait,
		MaxDeliver:    -1, // maxAge is the bound
		MaxAckPending: s.pending,
	})
	if err != nil {
		return nil, err
	}
	return &queue{nc, js, consumer, s.ackWait, s.maxAge, stream.CachedInfo().Created}, nil
}

// check returns an error if the queue is not the one that was opened: its stream or its
// consumer was deleted, or the store was. It returns nil if it cannot find out.
func (q *queue) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := q.js.Stream(ctx, pushStream)
	if err == nil && !stream.CachedInfo().Created.Equal(q.created) {
		return fmt.Errorf("the stream %s is another one, expected that of %v", pushStream, q.created)
	}
	if err == nil {
		_, err = stream.Consumer(ctx, consumerName)
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("the queue is gone, expected the stream %s and its consumer %s: %w", pushStream, consumerName, err)
	}
	return nil
}

// startServer starts a NATS server with JetStream in this process. With an empty address it
// takes no connections but those of nats.InProcessServer.
func startServer(host string, port int, dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "worker",
		Host:       host,
		Port:       port,
		DontListen: host == "",
		JetStream:  true,
		StoreDir:   dir,
		NoLog:      true,
		NoSigs:     true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("the NATS server is not ready after 10 seconds")
	}
	return s, nil
}
