package apns

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// Channels creates, reads, lists and deletes the broadcast channels of an app. Devices
// subscribe to a channel. A broadcast, which is a [Message] with a Channel in place of a
// Token, then reaches all of them: a [Client] or a [Conn] sends it.
//
// Channels are for Live Activities on iOS 18 and later. The app needs the Broadcast
// Capability, which is set for its App ID in the developer account. It can have 10,000
// channels in each environment.
//
// The fields are settings: they must not change after the first call, nor must what Config
// points to. Any number of goroutines may call the methods. The calls are made one after
// the other, on one connection, which the first call opens. A call whose context has no
// deadline has one minute, with the wait for its turn. Close closes the connection.
//
// # Outcomes
//
// The error of a call is nil if the server did what was asked. Otherwise it matches exactly
// one of these:
//
//   - *[PushError]: rejected. Its Reason says why, and its APNsID is the apns-request-id of
//     the answer. If Retryable is true, the same call may succeed later: after
//     [ReasonTooManyRequests], [ReasonInternalServerError] and [ReasonServiceUnavailable].
//   - [ErrNotSent]: the server did not process the call. If the error matches [ErrRefused]
//     as well, the server refuses the sender.
//   - [ErrInDoubt]: the call was written, and then the connection or the context ended
//     without an answer. After Create the channel may exist, and then List has its ID.
//     After Delete it may be gone. Read and List change nothing and can be repeated.
//   - [ErrInvalid]: the call breaks a rule, and was not sent.
//
// A call that the server says it did not process is sent once more, at once: on another
// connection if that one has ended. No other call is repeated.
//
// The source is "Sending channel management requests to APNs".
type Channels struct {
	// Addr is the server's host and port. Empty means ChannelsProduction.
	Addr string

	// Config says how to reach the server. Its BundleID is the app, and is required. A
	// Client that sends broadcasts to the channels can have the same Config.
	Config *Config

	once   sync.Once
	turn   chan struct{}   // has a value during a call
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	// Of whoever has the turn:
	conn    *Conn // nil if there is none
	doubted bool  // a call on conn had no answer
}

// A StoragePolicy says whether a channel stores a message for devices that cannot be
// reached when it is sent. It never changes. The numbers are Apple's.
type StoragePolicy int

const (
	// StoreNone stores no message. Such a channel may publish more often.
	StoreNone StoragePolicy = 0
	// StoreMostRecent stores the most recent message, for at most 8 hours.
	StoreMostRecent StoragePolicy = 1
)

// String returns the name of the constant, such as "StoreNone", or a number such as
// "StoragePolicy(7)" if there is none.
func (p StoragePolicy) String() string {
	switch p {
	case StoreNone:
		return "StoreNone"
	case StoreMostRecent:
		return "StoreMostRecent"
	}
	return fmt.Sprintf("StoragePolicy(%d)", int(p))
}

// Create creates a channel and returns its ID, for Message.Channel. An ID is in base64, and
// can have any length. It is not given to another channel later.
//
// If the app has as many channels as it can have, the error matches
// [ReasonCannotCreateChannelConfig].
func (c *Channels) Create(ctx context.Context, storage StoragePolicy) (id string, err error) {
	if storage != StoreNone && storage != StoreMostRecent {
		return "", &fieldError{ReasonBadRequestParams, fmt.Sprintf("storage policy is %d, expected %d or %d", storage, StoreNone, StoreMostRecent)}
	}
	err = c.call(ctx, &channelCall{
		doing: "creating a channel", method: "POST", name: "/channels", success: 201,
		body: fmt.Appendf(nil, `{"message-storage-policy":%d,"push-type":"LiveActivity"}`, storage),
		read: func(r *h2.Response) error {
			id = string(r.Get("apns-channel-id"))
			return checkChannelID(id)
		},
	})
	return id, err
}

// Read returns the storage policy of the channel with the ID. If there is no such channel,
// the error matches [ReasonChannelNotRegistered].
func (c *Channels) Read(ctx context.Context, id string) (StoragePolicy, error) {
	if err := checkChannelID(id); err != nil {
		return 0, err
	}
	var channel struct {
		Storage *StoragePolicy `json:"message-storage-policy"`
	}
	err := c.call(ctx, &channelCall{
		doing: "reading a channel", method: "GET", name: "/channels", channel: id, success: 200,
		read: func(r *h2.Response) error {
			err := json.Unmarshal(r.Body, &channel)
			if err == nil && channel.Storage == nil {
				err = errors.New("message-storage-policy is missing")
			}
			return err
		},
	})
	if err != nil {
		return 0, err
	}
	return *channel.Storage, nil
}

// List returns the IDs of all channels of the app, in the order of the answer.
func (c *Channels) List(ctx context.Context) (ids []string, err error) {
	var list struct{ Channels *[]string }
	err = c.call(ctx, &channelCall{
		doing: "listing the channels", method: "GET", name: "/all-channels", success: 200,
		read: func(r *h2.Response) error {
			err := json.Unmarshal(r.Body, &list)
			if err == nil && list.Channels == nil {
				err = errors.New("channels is missing") // which does not say that there are none
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return *list.Channels, nil
}

// Delete deletes the channel with the ID. What the server has stored for its devices may
// still be delivered. If there is no such channel, the error matches
// [ReasonChannelNotRegistered]; servers were also seen to answer [ReasonBadPath].
func (c *Channels) Delete(ctx context.Context, id string) error {
	if err := checkChannelID(id); err != nil {
		return err
	}
	return c.call(ctx, &channelCall{
		doing: "deleting a channel", method: "DELETE", name: "/channels", channel: id, success: 204,
		read: func(*h2.Response) error { return nil },
	})
}

// Close ends the calls that are under way, closes the connection, and returns when nothing
// is left running. Later calls end with an error that matches ErrNotSent and
// [net.ErrClosed]. The error of Close is always nil.
func (c *Channels) Close() error {
	c.start()
	c.cancel()
	c.turn <- struct{}{}
	c.disconnect()
	<-c.turn
	return nil
}

const (
	// channelTimeout is how long a call takes at most if its context has no deadline.
	channelTimeout = time.Minute
	// maxChannelList is the largest answer to List, in bytes. It has room for 10,000 IDs
	// of 400 bytes.
	maxChannelList = 4 << 20
)

var errChannelsClosed = fmt.Errorf("the Channels are closed: %w", net.ErrClosed)

// start makes what a zero Channels lacks.
func (c *Channels) start() {
	c.once.Do(func() {
		c.turn = make(chan struct{}, 1)
		c.ctx, c.cancel = context.WithCancel(context.Background())
	})
}

// call makes a call when it is its turn.
func (c *Channels) call(ctx context.Context, call *channelCall) error {
	c.start()
	config := cmp.Or(c.Config, new(Config))
	if err := checkBundleID(config.BundleID); err != nil {
		return err
	}
	call.dir = "/1/apps/" + config.BundleID
	caller := ctx
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, channelTimeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	err := c.callInTurn(ctx, config, call)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled) && c.ctx.Err() != nil && caller.Err() == nil:
		outcome := ErrNotSent
		if errors.Is(err, ErrInDoubt) {
			outcome = ErrInDoubt
		}
		err = fmt.Errorf("%w: %w", outcome, errChannelsClosed)
	}
	return &channelError{call.doing, err}
}

func (c *Channels) callInTurn(ctx context.Context, config *Config, call *channelCall) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for another call: %w", ErrNotSent, ctx.Err())
	}
	for first := true; ; first = false {
		if err := c.connect(ctx, config); err != nil {
			return fmt.Errorf("%w: %w", ErrNotSent, plainError{err})
		}
		err := c.conn.http2.d.callChannels(ctx, call)
		c.doubted = errors.Is(err, ErrInDoubt)
		if !first || !errors.Is(err, ErrNotSent) || ctx.Err() != nil || isPermanent(err) || errors.Is(err, ReasonTooManyProviderTokenUpdates) {
			return err
		}
	}
}

// connect opens a connection, unless there is one that is of use.
func (c *Channels) connect(ctx context.Context, config *Config) error {
	switch {
	case c.ctx.Err() != nil: // ctx may not have noticed yet
		return errChannelsClosed
	case c.conn != nil && !c.doubted && c.conn.CheckForError() == nil:
		return nil
	}
	c.disconnect()
	addr := cmp.Or(c.Addr, ChannelsProduction)
	conn, err := Dial(ctx, addr, config)
	switch {
	case err != nil:
		return err
	case conn.http2 == nil:
		conn.Close()
		return &permanentError{fmt.Errorf("apns: %s did not negotiate HTTP/2 (ALPN h2), expected that of channel management", addr)}
	}
	c.conn, c.doubted = conn, false
	return nil
}

func (c *Channels) disconnect() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// A channelCall is one call of a method of Channels: a source of one request, which is not
// a message.
type channelCall struct {
	pushCall
	doing     string // for errors
	method    string
	dir, name string // the path is dir and then name
	channel   string // the apns-channel-id header; empty: none
	body      []byte
	success   int                      // the status with which the server says that it was done
	read      func(*h2.Response) error // takes that response
}

// callChannels makes a call, and waits for its outcome.
func (d *dispatcher) callChannels(ctx context.Context, c *channelCall) error {
	c.pushCall = pushCall{done: make(chan struct{}, 1)}
	r := &c.delivery
	r.message, r.source, r.checked = new(Message), c, true
	d.deliver(ctx, &c.pushCall)
	return r.err
}

// channelRequest makes the request of a call.
func (p *provider) channelRequest(c *channelCall) {
	r := &p.out
	r.Method, r.Authority, r.Dir, r.Name, r.Body = c.method, p.host, c.dir, c.name, c.body
	r.ResponseSize = maxChannelList
	r.Fields = r.Fields[:0]
	if len(c.body) > 0 {
		p.add("content-length", strconv.Itoa(len(c.body)), hpack.Literal)
		p.add("content-type", "application/json", hpack.Literal)
	}
	p.add("apns-channel-id", c.channel, hpack.Literal)
}

// answer returns what a response with the status of a success means. why is the reason if
// it was cut off, or nil.
func (c *channelCall) answer(r *h2.Response, why error) answer {
	err := c.read(r)
	switch {
	case err == nil:
		return answer{}
	case !r.Whole && why != nil:
		return answer{kind: lost, err: fmt.Errorf("%w: the answer is cut off: %w", ErrInDoubt, why)}
	case !r.Whole:
		return answer{kind: lost, err: fmt.Errorf("%w: the answer is too large, expected at most %d bytes", ErrInDoubt, maxChannelList)}
	}
	return answer{kind: lost, err: fmt.Errorf("%w: the answer, with HTTP status %d, is not what was expected: %s", ErrInDoubt, r.Status, plainText(err))}
}

// A channelError is the error of a call of Channels that was to be sent.
type channelError struct {
	doing string
	err   error
}

func (e *channelError) Error() string {
	text := plainText(e.err)
	if _, ok := e.err.(*PushError); ok {
		text = strings.TrimPrefix(text, "message ") // "rejected: ..."
	}
	return "apns: " + e.doing + ": " + text
}

func (e *channelError) Unwrap() error { return e.err }

// Broadcasts.

var errBinaryBroadcast error = &fieldError{StatusMissingToken, "message has a channel, expected a token: the binary protocol has no broadcasts"}

// checkBroadcast says which rule a message with a channel breaks, or returns nil. It leaves
// out the rules that other messages have too.
func (p *provider) checkBroadcast(m *Message) error {
	switch {
	case m.Token != "":
		return &fieldError{ReasonBadChannelID, "message has a token and a channel, expected one of them"}
	case m.Topic != "":
		return &fieldError{ReasonBadTopic, fmt.Sprintf("topic is %q, expected none: a broadcast goes to the app of Config.BundleID", m.Topic)}
	case m.CollapseID != "":
		return &fieldError{ReasonBadCollapseID, fmt.Sprintf("collapse ID is %q, expected none in a broadcast", m.CollapseID)}
	case m.PushType != "" && m.PushType != PushTypeLiveActivity:
		return &fieldError{ReasonInvalidPushType, fmt.Sprintf("push type is %q, expected %s in a broadcast", m.PushType, PushTypeLiveActivity)}
	}
	if err := checkBundleID(p.topics.bundleID); err != nil {
		return err
	}
	return checkChannelID(m.Channel)
}

// checkBundleID checks a bundle ID for use in a path. Apple allows the characters that need
// no escape there.
func checkBundleID(id string) error {
	for i, r := range id {
		if !isASCIILetterOrDigit(r) && !strings.ContainsRune("-._", r) {
			return &fieldError{ReasonBadPath, fmt.Sprintf("Config.BundleID has %q at index %d, expected only letters, digits, hyphens and periods", r, i)}
		}
	}
	if id == "" {
		return &fieldError{ReasonBadPath, "Config.BundleID is empty, expected that of the app, which broadcasts and their channels require"}
	}
	return nil
}

// checkChannelID checks that the ID of a channel can be one. The server alone knows which
// there are.
func checkChannelID(id string) error {
	for i, r := range id {
		if !isASCIILetterOrDigit(r) && !strings.ContainsRune("+/-_=", r) {
			return &fieldError{ReasonBadChannelID, fmt.Sprintf("channel ID has %q at index %d, expected only base64", r, i)}
		}
	}
	if id == "" {
		return &fieldError{ReasonMissingChannelID, "channel ID is empty, expected that of a channel"}
	}
	return nil
}

func isASCIILetterOrDigit(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
