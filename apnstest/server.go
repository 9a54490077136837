// Package apnstest has a server that stands in for Apple's push services, for
// tests of code that sends notifications, and for trying things out.
//
//	server := apnstest.NewServer(func(m *apns.Message) error {
//		if m.Token == gone {
//			return apns.StatusInvalidToken
//		}
//		return nil
//	})
//	defer server.Close()
//
//	conn, err := apns.Dial(ctx, "gateway.push.apple.com:2195", server.Config())
//
// The Config dials the server whatever the host's name, and goes by the port; it trusts
// the server's certificate and has a client certificate that the server trusts.
// The code under test keeps its addresses.
//
// On the binary wire a [Server] does what Apple's gateway did. It is silent about a message that it
// accepts; about one that it does not it sends an error packet, ends the stream,
// and discards what comes after. It tells afterwards what it did with each
// message: see [Server.Records]. Its feedback service hands out the records that
// it was given, once.
//
// The HTTP/2 provider API it speaks as well, with the checks that Apple's makes
// of a request, its credentials included; the same handler decides. TokenConfig
// has an authentication key in place of the certificate. Until devices are
// registered, with Register, every token is good.
//
// The server's HTTP/2 is strict. A request that RFC 9113 calls malformed is reset
// with PROTOCOL_ERROR: no handler is asked about it, and it is not recorded. A client
// that breaks another rule, such as the size of a window, gets the error that the
// RFC has for that.
//
// What can go wrong between a client and a gateway it does on demand: a handler
// returns a [Fault], OnConnect one for a whole connection, and RefuseConnections turns
// connections away.
//
// For a test with testing/synctest the server runs on a network in memory: see
// the field InMemory.
package apnstest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/apns"
)

// A Server is Apple's: the HTTP/2 provider API, the binary gateway and the
// feedback service. The fields are settings, to be made between
// NewUnstartedServer and Start.
type Server struct {
	// Handler decides what becomes of a message. It is called for one message
	// after the other of a connection, and for several connections at a time.
	// Nil accepts everything. It is not asked about a message that Apple's
	// gateway would have rejected at sight: one without a token or payload, or
	// with one that is too long.
	//
	// To return nil accepts the message; so does apns.StatusNoError, which a
	// map gives for a token it does not have. An apns.Status or apns.Reason
	// rejects it; except apns.StatusShutdown, which accepts it and says that it
	// was the last. Each is translated for the wire that has the other. An
	// *apns.PushError is sent as it is, with whatever ID. A Fault does what it
	// says. Any other error rejects with apns.StatusProcessingError, which over
	// HTTP/2 is apns.ReasonInternalServerError.
	Handler func(*apns.Message) error

	// OnConnect, unless nil, is asked about each connection after its TLS
	// handshake; port is apns.ProviderPort, apns.PushPort or
	// apns.FeedbackPort. An error, as a
	// Handler returns it, ends the connection before anything is read.
	//
	// The feedback service says nothing but its list: a Fault without an Err
	// is how it hands that out, and any other error has it keep the list for
	// the next client.
	OnConnect func(port int, state tls.ConnectionState) error

	// Barrier is the answer to the message with neither token nor payload with
	// which apns.Conn.Shutdown asks what was accepted. Nil means
	// apns.StatusMissingToken. A gateway that never answers it is
	// apns.StatusNoError.
	Barrier error

	// StreamLimit is how many messages a connection may have in flight over HTTP/2.
	// Zero means 1,000. A negative number allows none until SetStreamLimit does.
	StreamLimit int

	// HTTP2 has further limits for HTTP/2 clients. The zero value has the defaults.
	HTTP2 HTTP2Settings

	// HTTP2Addr, PushAddr and FeedbackAddr are where the services listen, a
	// loopback address and a port. Empty means 127.0.0.1 and a free one, and in memory,
	// where the address means nothing, localhost and the well-known one. Start
	// fills it in.
	HTTP2Addr, PushAddr, FeedbackAddr string

	// InMemory has the services listen on a network in memory, reached through
	// the DialContext of Config alone. In a testing/synctest bubble, create and
	// close the server inside it: what is from outside must not be used there.
	//
	// It behaves as TCP does: a write returns before it is read, as long as
	// there is room in the buffer; a write to a peer that has closed succeeds
	// and draws a reset, which arrives a millisecond later and, as on some
	// systems, throws away what was received and not read yet.
	InMemory bool

	// BufferSize is the room in each direction of a connection in memory, in
	// bytes. Zero means 64 KiB.
	BufferSize int

	// TLS is the configuration to start from. Nil means the zero tls.Config.
	// Where it says nothing of certificates, the server uses its own and
	// requires one from the client; over HTTP/2, where a provider token does as
	// well, it requires none.
	TLS *tls.Config

	certs    *authority
	authKey  []byte     // the .p8 file
	services []*service // in the order of their ports; set by Start
	closing  chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex // protects following
	changed  *sync.Cond
	records  []Record
	feedback []apns.Feedback
	conns    map[*conn]struct{}
	accepted int // connections
	refusing bool
	closed   bool

	// Of the HTTP/2 provider API:
	http2      map[*http2Conn]struct{}
	announced  announcement
	keys       map[string]authKey
	devices    map[string]device
	registered bool // some device was
}

// A device is what the server knows of a token.
type device struct {
	topics map[string]bool
	deadAt time.Time // zero while it lives
}

// NewServer starts a server on loopback, with the handler, which may be nil. It
// panics if it cannot listen.
func NewServer(handler func(*apns.Message) error) *Server {
	s := NewUnstartedServer(handler)
	s.Start()
	return s
}

// NewUnstartedServer returns a server for settings to be made before its Start.
func NewUnstartedServer(handler func(*apns.Message) error) *Server {
	s := &Server{
		Handler: handler,
		closing: make(chan struct{}),
		conns:   make(map[*conn]struct{}),
		http2:   make(map[*http2Conn]struct{}),
		keys:    make(map[string]authKey),
		devices: make(map[string]device),
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Start starts the server. It panics if it cannot listen, or if a setting is out of
// its range.
func (s *Server) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.certs != nil || s.closed {
		panic("apnstest: Start of a server that was started or closed")
	}
	s.certs = newAuthority()
	s.authKey = s.addAuthKey(KeyID, TeamID)
	s.announced = announcement{
		limit:  orDefault("StreamLimit", s.StreamLimit, defaultStreamLimit, 0, math.MaxInt32),
		window: s.HTTP2.withDefaults().InitialWindow,
	}
	binary, http2 := s.certs.serverConfigs(s.TLS)
	s.services = []*service{
		{ports: []int{apns.ProviderPort, apns.ProviderAltPort}, addr: &s.HTTP2Addr, tls: http2, serve: s.serveHTTP2},
		{ports: []int{apns.PushPort}, addr: &s.PushAddr, tls: binary, serve: s.servePush},
		{ports: []int{apns.FeedbackPort}, addr: &s.FeedbackAddr, tls: binary, serve: s.serveFeedback},
	}
	for _, sv := range s.services {
		if err := s.listen(sv); err != nil {
			s.stopListening()
			panic(fmt.Sprintf("apnstest: cannot listen: %v", err))
		}
	}
}

// mustBeStarted panics if a method was called too early.
func (s *Server) mustBeStarted() {
	if s.certs == nil {
		panic("apnstest: the server is not started")
	}
}

// Close ends all connections and returns when nothing of the server is left. A
// message that was on its way may go unrecorded.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
		s.stopListening()
		for c := range s.conns {
			c.raw.Close()
		}
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
}

// Config returns a new configuration with which apns.Dial reaches the server. It
// goes by the port of the address: the well-known one of the service or the one
// that it listens on. An IP address, unlike a name, must be one that the server
// listens on.
func (s *Server) Config() *apns.Config {
	s.mustBeStarted()
	return &apns.Config{
		TLS:         s.certs.clientConfig(),
		DialContext: s.dial,
	}
}

// TokenConfig is Config with an authentication key, of KeyID and TeamID, in place
// of the client certificate, and with the topic Topic for messages that have
// none. It is for HTTP/2.
func (s *Server) TokenConfig() *apns.Config {
	config := s.Config()
	config.TLS.Certificates = nil
	config.Topic = Topic
	var err error
	if config.Key, err = apns.ParseAuthKey(s.authKey, KeyID, TeamID); err != nil {
		panic("apnstest: " + err.Error())
	}
	return config
}

// AddAuthKey makes another authentication key known to the server and returns it
// as a .p8 file has it. The IDs have 10 letters and digits.
func (s *Server) AddAuthKey(keyID, teamID string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addAuthKey(keyID, teamID)
}

// Register makes device tokens known to the server, for a topic. From the first
// call on it rejects all that are not known, or not for the topic of their
// message. A token that was dead lives again.
func (s *Server) Register(topic string, tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.registered = true
	for _, token := range tokens {
		d := s.devices[strings.ToLower(token)]
		topics := maps.Clone(d.topics)
		if topics == nil {
			topics = make(map[string]bool)
		}
		topics[topic] = true
		s.devices[strings.ToLower(token)] = device{topics: topics}
	}
}

// Unregister has the server say that the token's device has lost the app, at the
// given time: over HTTP/2 in its answer to a message; on the binary wire, whose
// gateway goes on to accept them, in the list of the feedback service. It panics
// where AddFeedback does.
func (s *Server) Unregister(token string, deadAt time.Time) {
	s.AddFeedback(apns.Feedback{Token: token, DeadAt: deadAt})
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[strings.ToLower(token)]
	d.deadAt = deadAt
	s.devices[strings.ToLower(token)] = d
}

func (s *Server) setHTTP2(h *http2Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.http2[h] = struct{}{}
	} else {
		delete(s.http2, h)
	}
}

// Certificates returns the server's certificates and keys, for programs that
// connect to it without its Config.
func (s *Server) Certificates() Certificates {
	s.mustBeStarted()
	cs := s.certs.pem()
	cs.AuthKey = s.authKey
	return cs
}

// RefuseConnections sets whether connections are refused. Those that are open stay so. It
// panics if the server cannot listen again.
func (s *Server) RefuseConnections(refuse bool) {
	s.mustBeStarted()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.refusing == refuse {
		return
	}
	s.refusing = refuse
	if refuse {
		s.stopListening()
		return
	}
	for _, sv := range s.services {
		err := s.listen(sv)
		for try := 0; try < 100 && err != nil; try++ {
			time.Sleep(10 * time.Millisecond) // a client may have the port, for a moment
			err = s.listen(sv)
		}
		if err != nil {
			panic(fmt.Sprintf("apnstest: cannot listen again: %v", err))
		}
	}
}

// AddFeedback adds records to the list that the feedback service hands to the
// next client, which empties it. It panics for a record that cannot be encoded.
func (s *Server) AddFeedback(records ...apns.Feedback) {
	for _, f := range records {
		if _, err := apns.AppendFeedback(nil, f); err != nil {
			panic(fmt.Sprintf("apnstest: %v", err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feedback = append(s.feedback, records...)
}

// A Record says what the server did with a message.
type Record struct {
	Message *apns.Message
	Outcome Outcome
	Err     error // the verdict: the handler's, or what the server found at sight
	Conn    int   // the connection it came on, counted from 1
}

// An Outcome is what the server did with a message.
type Outcome int

const (
	Accepted  Outcome = iota // took it
	Rejected                 // rejected it
	Discarded                // ignored it, as one after the end of the stream or the one where a Fault ended it
)

// String returns, for example, "accepted".
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Discarded:
		return "discarded"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// Records returns what the server did with each message so far, in the order in
// which it read them. The barrier of apns.Conn.Shutdown is not among them.
func (s *Server) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// Messages returns the messages of Records that had the outcome.
func (s *Server) Messages(o Outcome) []*apns.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ms []*apns.Message
	for _, r := range s.records {
		if r.Outcome == o {
			ms = append(ms, r.Message)
		}
	}
	return ms
}

// Wait waits until the server has recorded n messages. It fails if ctx ends
// first or the server is closed.
func (s *Server) Wait(ctx context.Context, n int) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.records) < n {
		err := ctx.Err()
		if s.closed {
			err = errors.New("server closed")
		}
		if err != nil {
			return fmt.Errorf("apnstest: %d messages recorded, expected %d: %w", len(s.records), n, err)
		}
		s.changed.Wait()
	}
	return nil
}

func (s *Server) record(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
	s.changed.Broadcast()
}

// A service is one of the server's listeners.
type service struct {
	ports    []int   // that Apple's has
	addr     *string // the setting
	tls      *tls.Config
	serve    func(*conn)
	listener net.Listener // nil while connections are refused; protected by Server.mu
}

// listen opens the service's listener; the caller holds s.mu.
func (s *Server) listen(sv *service) error {
	if s.InMemory {
		*sv.addr = cmp.Or(*sv.addr, "localhost:"+strconv.Itoa(sv.ports[0]))
		sv.listener = newMemoryListener(*sv.addr, cmp.Or(s.BufferSize, 64<<10))
	} else {
		l, err := net.Listen("tcp", cmp.Or(*sv.addr, "127.0.0.1:0"))
		if err != nil {
			return err
		}
		sv.listener = l
		if addr := l.Addr().String(); addr != *sv.addr {
			*sv.addr = addr
		}
	}
	l := sv.listener
	s.running.Go(func() {
		for {
			raw, err := l.Accept()
			switch {
			case err == nil:
				s.serve(sv, raw)
			case errors.Is(err, net.ErrClosed):
				return
			default:
				time.Sleep(5 * time.Millisecond) // there are too many open files, say
			}
		}
	})
	return nil
}

// stopListening closes the listeners; the caller holds s.mu.
func (s *Server) stopListening() {
	for _, sv := range s.services {
		if sv.listener != nil {
			sv.listener.Close()
			sv.listener = nil
		}
	}
}

// serve serves a connection in a goroutine of its own.
func (s *Server) serve(sv *service, raw net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		raw.Close()
		return
	}
	s.accepted++
	c := newConn(raw.(endpoint), sv.tls, s.accepted)
	s.conns[c] = struct{}{}
	s.running.Go(func() {
		defer func() {
			c.raw.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		}()
		if c.tls.HandshakeContext(context.Background()) == nil {
			sv.serve(c)
		}
	})
}

// dial is the DialContext of Config.
func (s *Server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var ports []string
	var to *service
	for _, sv := range s.services {
		_, own, _ := net.SplitHostPort(*sv.addr)
		known := []string{own}
		for _, p := range sv.ports {
			known = append(known, strconv.Itoa(p))
		}
		if slices.Contains(known, port) {
			to = sv
		}
		ports = append(ports, known...)
	}
	var l net.Listener
	var own string
	if to != nil {
		l, own = to.listener, *to.addr
	}
	s.mu.Unlock()
	switch {
	case to == nil:
		return nil, fmt.Errorf("apnstest: no service on the port of %s, there are: %s", addr, strings.Join(ports, ", "))
	case !s.InMemory:
		return new(net.Dialer).DialContext(ctx, network, own)
	case l == nil:
		return nil, refused(addr)
	}
	return l.(*memoryListener).dial(ctx, addr)
}

func refused(addr string) error {
	return &net.OpError{Op: "dial", Net: "memory", Addr: memoryAddr(addr), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}
