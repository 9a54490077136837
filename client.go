package apns

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"net"
	"strings"
	"sync"
	"time"
)

// A Client sends messages over as many connections as it needs, and learns the outcome of
// each message. It dials when there is something to send, dials again when a connection
// ends, and resends a message where it is known that the server did not process it.
//
// The zero value sends to Production with the zero Config. The fields are settings: they
// must not change after the first call, nor must what Config points to. All methods may
// be called by any number of goroutines. Keep a Client for as long as there may be
// something to send. End it with Shutdown or Close.
//
// # Outcomes
//
// Each message has exactly one outcome:
//
//   - accepted: the error is nil.
//   - rejected: the error is a *[PushError], with the ID of the message.
//   - not sent: the error matches [ErrNotSent]. The Client was closed, the message's
//     context or time ended before it was written, its Attempts ran out, or the server
//     refuses the sender ([ErrRefused]): its certificate, its key or its environment.
//   - in doubt: the error matches [ErrInDoubt]. The message was written, and then the
//     connection, the message's context or its time ended without an answer, or the
//     answer has no reason from APNs: see [Conn.WritePushMsg]. With TLS 1.3 a binary
//     gateway may refuse the certificate after messages were written: see [Dial].
//   - invalid: the error matches [ErrInvalid]. The message breaks a rule: see [BuildMsg].
//     Or it matches [ErrExpired]: the message's Expiry passed while it waited.
//
// An error that is due to a context matches its Err() as well, one that is due to Timeout
// matches [context.DeadlineExceeded], and one that is due to Close matches
// [net.ErrClosed].
//
// # HTTP/2
//
// Each message has its own answer. The Client starts with one connection and with 100
// messages in flight on it. It doubles that number while this brings more answers a
// second, since what is in flight is in doubt if the connection is cut. It opens another
// connection, up to MaxConns, when the server's limit of streams keeps messages waiting.
// A connection without work is closed after an hour. After a minute without work it is
// checked with a PING before it is used again.
//
// What the server has not processed is resent at once, and from the second time on after
// a back-off: on another connection after [ReasonShutdown], [ReasonIdleTimeout] and
// [ReasonUnrelatedKeyIDInToken], with a new token after [ReasonExpiredProviderToken].
// After [ReasonTooManyRequests], [ReasonInternalServerError] and
// [ReasonServiceUnavailable] the message is resent after the server's Retry-After, but
// after a minute at the latest; without a Retry-After it is resent after 1, 2, 4 seconds
// and so on up to a minute, with up to 50 % jitter. [ReasonTooManyProviderTokenUpdates]
// always has this back-off. (After a 5xx Apple asks for 15 minutes, which is too late for
// most messages.) When the Attempts have run out, the error is the last answer: a
// *PushError for which Retryable is true, or ErrNotSent. All other rejections are
// reported at once.
//
// A 500 or 503 with a Retry-After also pauses its connection, for a minute at most. A
// message that cannot wait so long is not sent. A 429 concerns one device, and so only
// its message.
//
// # The binary protocol
//
// A gateway says nothing about messages that it accepts. So the Client ends each
// connection with a barrier: a message that the gateway must reject. Its rejection
// confirms that all messages before it were accepted. All callers share it. Meanwhile the
// next connection is dialed and takes messages.
//
// Messages are sent in the order in which they were handed over. When the gateway rejects
// one, those before it are accepted. Those after it, which the gateway discards, go first
// on the next connection, in their order. (Messages that were sent on the next connection
// before the rejection came have gone before them.) The identifiers that the gateway sees
// are the Client's own, counted from 1 on each connection. Message.ID is for the caller
// alone.
//
// A connection that has nothing to confirm is closed after 10 seconds without messages: the
// protocol has no way to find out whether it still works.
//
// # Connections that fail
//
// While a message waits, the Client dials again after 0.1, 0.2, 0.4 seconds and so on up
// to MaxDialBackoff, with up to 50 % jitter. A connection on which no message was answered
// counts as a failure to connect. A message whose time ends before the next attempt is not
// sent, at once.
//
// A connection is replaced if it fails message after message: with InternalServerError,
// ServiceUnavailable or a 5xx without a reason, or without an answer in the time of a message,
// if that is at least a second. It is used until the new one is open. Only other answers count
// as success: not that the connection was opened, and not that PINGs are answered.
//
// Some failures do not pass with time: the server refuses the sender, does not speak the
// protocol, or has a certificate that is not trusted. Then all messages that wait end at
// once with ErrNotSent and that error, and so do those that are handed over before the
// next attempt is due. Here the back-off goes up to a minute.
//
// A server may change its protocol from one connection to the next.
type Client struct {
	// Addr is the server's host and port. Empty means Production.
	Addr string

	// Config says how to reach the server. Nil means the zero Config. TLS sessions are
	// resumed, unless Config.TLS has a ClientSessionCache of its own, or a
	// GetClientCertificate, which may return another certificate each time.
	Config *Config

	// Timeout is the time that a message has if it was given to PushAll, or to Push with
	// a context without a deadline. Zero means one minute. It is accurate to about 25 %.
	// On the binary protocol it also limits how long a gateway may take to read, or to
	// answer a barrier.
	Timeout time.Duration

	// Attempts limits how often a message is sent. Zero means 10. On the binary protocol
	// it does not count when a message is resent because another was rejected.
	Attempts int

	// InDoubt says what happens to a message that is in doubt. Zero means
	// InDoubtReport.
	InDoubt InDoubtPolicy

	// MaxInFlight limits the messages in flight, over all connections and callers: those
	// that were written and have no answer. Zero means 32,768.
	//
	// On the binary protocol a connection takes up to three quarters of it before its
	// barrier, and fewer after one that ended without an answer.
	MaxInFlight int

	// MaxConns limits the connections over HTTP/2. Zero means 4.
	MaxConns int

	// MaxDialBackoff is the longest time between two attempts to connect, where the
	// failure may pass with time. Zero means 10 seconds.
	MaxDialBackoff time.Duration

	// ConfirmInterval is the time between two barriers on the binary protocol. Zero means
	// one second. A barrier comes earlier if a connection is full, PushAll has no more
	// messages or Shutdown is called. So this is also how long a single Push takes, if
	// others came before it.
	ConfirmInterval time.Duration

	// AssumeAcceptedAfter, if not zero, takes silence for acceptance on the binary
	// protocol. If a gateway has not answered a barrier for so long, and has not closed
	// the connection, what was sent counts as accepted. It is for gateways that never
	// answer a barrier: there every message would be in doubt. What a gateway says later
	// is lost. It should be well below Timeout.
	AssumeAcceptedAfter time.Duration

	// OnAttempt, if not nil, is called with each attempt to send a message, and with the
	// context of the call of Push or PushAll. It is called when the outcome of the
	// attempt is known and before that of the message is reported, by the goroutine that
	// learned it and without a lock. Calls may be concurrent, and those about one message
	// may be out of order. It must return quickly, and must not call Push, PushAll,
	// Shutdown or Close.
	OnAttempt func(context.Context, Attempt)

	once sync.Once
	d    *dispatcher // made at the first call
}

// dispatcher returns the dispatcher, and makes it at the first call.
func (c *Client) dispatcher() *dispatcher {
	c.once.Do(func() {
		log := new(Config).logger()
		if c.Config != nil {
			log = c.Config.logger()
		}
		c.d = newDispatcher(settings{
			timeout:         positive(c.Timeout, defaultTimeout),
			maxAttempts:     min(positive(c.Attempts, defaultAttempts), math.MaxUint16),
			maxInFlight:     positive(c.MaxInFlight, defaultMaxInFlight),
			maxConns:        positive(c.MaxConns, defaultMaxConns),
			confirmInterval: positive(c.ConfirmInterval, defaultConfirmInterval),
			assumeAccepted:  max(c.AssumeAcceptedAfter, 0),
			inDoubt:         c.InDoubt,
			observe:         c.OnAttempt,
		}, log)
		c.d.dialer = newDialer(c.d, cmp.Or(c.Addr, Production), c.Config, positive(c.MaxDialBackoff, defaultMaxDialBackoff))
	})
	return c.d
}

// An InDoubtPolicy says what becomes of a message that was written, and about which
// nothing was heard.
type InDoubtPolicy int

const (
	// InDoubtReport reports it, with an error that matches ErrInDoubt.
	InDoubtReport InDoubtPolicy = iota
	// InDoubtResendCollapsible resends it, until its Attempts run out, if it has a
	// CollapseID and was sent over HTTP/2: a duplicate replaces the first one, but
	// may alert the user once more.
	InDoubtResendCollapsible
	// InDoubtResend resends it, until its Attempts run out. It may be delivered twice:
	// Apple does not promise to drop a duplicate with the same apns-id. Where
	// connections of the binary protocol end without a word, the Client asks for a
	// confirmation after fewer and fewer messages, so that it makes progress with a
	// gateway that takes a few on each.
	InDoubtResend
)

// Push sends the message and waits for its outcome. The error says which it is: see
// [Client]. The Receipt is what the server says of a message that it accepted over
// HTTP/2.
//
// If ctx has no deadline, the message has Timeout. If ctx ends, Push returns at once. On
// the binary protocol Push waits for a barrier, which it shares with all other calls: one
// call after the other takes ConfirmInterval for each, and many at a time take no longer
// than that for all.
func (c *Client) Push(ctx context.Context, m *Message) (Receipt, error) {
	return c.dispatcher().push(ctx, m)
}

var errNoMessage error = &fieldError{StatusMissingToken, "the message is nil, expected one with a token"}

// A Result is the outcome of a message that was given to PushAll or PushChan.
type Result struct {
	Message *Message // the same pointer
	Receipt Receipt  // if it was accepted over HTTP/2
	Err     error    // nil if it was accepted: see Client
}

// PushAll sends all messages of msgs. It yields the outcome of each message as soon as it
// is known, which is not the order in which they came. A message and its Payload must not
// be modified before its Result was yielded. After that they may be used again.
//
// The function msgs runs in a goroutine of its own, at the same time as the body of the
// caller's loop. A panic in it is a panic of PushAll. It is asked for no more messages
// than can be sent soon: besides those in flight, MaxInFlight may wait, or 1,024 if that
// is less. While it blocks, results are yielded as they become known.
//
// If ctx ends, all messages without an outcome end with it, and the loop ends when they
// were yielded. If the caller breaks the loop, they are abandoned without a result. In
// both cases msgs is asked for no more messages, and PushAll returns when msgs has
// returned: nothing is left running that PushAll started. So a msgs that may block should
// watch a context: cancel it before you break. Or use PushChan.
//
// After Shutdown or Close msgs is asked for no more messages either. The loop ends when
// those that it gave have their outcomes. A PushAll that begins later asks for one message,
// whose Result says why there are no more.
//
// Each message has Timeout. A deadline of ctx is for all together. A connection belongs to
// the Client: on the binary protocol it stays open until its barrier is answered, for
// Timeout at most.
func (c *Client) PushAll(ctx context.Context, msgs iter.Seq[*Message]) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		newPushAll(ctx, c.dispatcher()).run(msgs, yield)
	}
}

// PushChan is PushAll for messages that come from a channel, until it is closed. If the
// caller breaks the loop, or ctx ends, or Shutdown or Close is called, PushChan does not
// wait for the channel. If the loop was broken, what was received from the channel has a
// result only if that was yielded; otherwise all of it has one. A PushChan that begins after
// Shutdown or Close receives nothing, and its loop ends at once.
func (c *Client) PushChan(ctx context.Context, messages <-chan *Message) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		b := newPushAll(ctx, c.dispatcher())
		b.run(func(yield func(*Message) bool) {
			for b.ctx.Err() == nil && !b.d.isEnding() {
				select {
				case m, ok := <-messages:
					if !ok || !yield(m) {
						return
					}
				case <-b.ctx.Done():
				case <-b.d.ending:
				}
			}
		}, yield)
	}
}

// Connect opens a connection, unless there is one, and reports why it cannot. So a program
// finds out at its start that an address is wrong or that its certificate is refused. It
// makes one attempt. Messages use the connection.
//
// Over HTTP/2 it returns when the server's first SETTINGS have come. A provider token is
// judged with the first message. On the binary protocol it confirms with a barrier that
// the gateway takes messages, and opens another connection for them.
func (c *Client) Connect(ctx context.Context) error {
	d := c.dispatcher()
	d.mu.Lock()
	outcome := d.dialer.nextOutcomeLocked()
	d.unlock()
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		d.mu.Lock()
		defer d.unlock()
		return d.dialer.stopWaitingLocked(outcome, ctx.Err())
	}
}

// Stats returns the figures of this moment.
func (c *Client) Stats() Stats { return c.dispatcher().figures() }

// Shutdown waits until every message that was handed over has its outcome, and then
// closes the connections. Each PushAll and PushChan takes no more messages, so that its
// loop ends. Messages that come meanwhile end with ErrNotSent. On the binary
// protocol barriers are sent at once. If ctx ends first, Shutdown returns its error, and
// messages without an outcome stay on their way: call Close to end them.
func (c *Client) Shutdown(ctx context.Context) error {
	d := c.dispatcher()
	d.mu.Lock()
	drained := d.shutDownLocked(errClientClosed)
	d.unlock()
	select {
	case <-drained:
		return c.Close()
	case <-ctx.Done():
	}
	s := c.Stats()
	return fmt.Errorf("apns: Shutdown was cancelled while %d messages were without an outcome: %w", s.InFlight+s.Waiting, ctx.Err())
}

var errClientClosed = fmt.Errorf("the client is closed: %w", net.ErrClosed)

// Close closes all connections, and returns when nothing is left running, which takes up
// to a second where a server does not read. Messages in flight end with ErrInDoubt, all
// others with ErrNotSent. The error is always nil.
func (c *Client) Close() error {
	c.dispatcher().close(errClientClosed)
	return nil
}

const (
	defaultTimeout         = time.Minute
	defaultAttempts        = 10
	defaultMaxInFlight     = 32 << 10
	defaultMaxConns        = 4
	defaultConfirmInterval = time.Second
	defaultMaxDialBackoff  = 10 * time.Second
)

func positive[T int | time.Duration](n, otherwise T) T {
	if n <= 0 {
		return otherwise
	}
	return n
}

// plainText returns an error's text without the prefix, for use in the text of another.
func plainText(err error) string { return strings.TrimPrefix(err.Error(), "apns: ") }

// A plainError is an error without the prefix in its text, for use in another.
type plainError struct{ err error }

func (e plainError) Error() string { return plainText(e.err) }
func (e plainError) Unwrap() error { return e.err }
