// Package apnstest provides a server that stands in for Apple's push services. It is for
// tests of code that sends notifications, and for trying things out.
//
//	server := apnstest.NewServer(func(m *apns.Message) error {
//		if m.Token == gone {
//			return apns.ReasonUnregistered
//		}
//		return nil
//	})
//	defer server.Close()
//	client := &apns.Client{Config: server.TokenConfig()}
//	defer client.Close()
//
// The code under test keeps its addresses: the Config connects to the server for any
// host name. It trusts the server's certificate. [Server.TokenConfig] has an
// authentication key, and [Server.Config] a client certificate.
//
// The server checks requests and their credentials as Apple's server does, and then asks
// the handler. [Server.Records] returns what it did with each message. Every device token
// is valid until devices are registered with [Server.Register]. Every message is checked
// against the rules of Apple's documentation: see [Check] and [Record].
//
// The server can produce what goes wrong between a client and Apple: a handler returns a
// [Fault] for a message, OnConnect returns one for a connection, and
// [Server.RefuseConnections] refuses connections.
//
// The server also manages broadcast channels, for apns.Channels, and takes broadcasts to
// them. [Server.CreateChannel] creates one, and [Server.Channels] returns those that there
// are.
//
// [Scenarios] are tests of other clients, and of programs that pass messages on.
//
// # Simulated time
//
// For tests with testing/synctest the server runs on a network in memory. Create it inside
// the bubble:
//
//	synctest.Test(t, func(t *testing.T) {
//		server := apnstest.NewUnstartedServer(nil)
//		server.InMemory = true
//		server.Start()
//		defer server.Close()
//		// ...
//	})
//
// # HTTP/2
//
// The server's HTTP/2 is strict. A request that RFC 9113 calls malformed is reset with
// PROTOCOL_ERROR: the handler is not called, and nothing is recorded. A client that
// breaks another rule, such as the size of a window, gets the error that the RFC
// prescribes.
//
// # The binary protocol
//
// The server is also a gateway and a feedback service of the binary protocol; the port of
// the address selects the service. It does what Apple's gateway did: it sends nothing
// about a message that it accepts. For a message that it rejects it sends an error
// packet, ends the stream, and discards the messages that follow. The feedback service
// sends the records that it was given, once.
package apnstest

import (
	"crypto/tls"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"example.com/apns"
)

// A Server stands in for Apple's HTTP/2 provider API, binary gateway and feedback
// service. Set its fields between NewUnstartedServer and Start.
type Server struct {
	// Handler decides the outcome of a message. The server calls it for the messages of
	// one connection one after the other, and for those of several connections
	// concurrently. So a Handler must guard what it shares, such as a counter or a map,
	// even if the client has one connection: it may open another. A nil Handler accepts
	// every message.
	//
	// A Handler may keep the message. It must not modify it, since the Record shares it.
	// It should return soon: while it runs, the server neither reads nor answers the other
	// messages of the connection. Latency and Fault.Delay answer later and block nothing.
	// It may call the methods of the Server except Close, which waits for the Handler.
	//
	// A broadcast has a Channel and no Token.
	//
	// A message that fails the server's own checks is not passed to it: see the field
	// Lenient. On the binary protocol these are messages without a token or payload, or
	// with one that is too long.
	//
	// A nil error accepts the message. So does apns.StatusNoError, which is what a map of
	// statuses returns for a token that is not in it. An apns.Status or apns.Reason
	// rejects the message; the server translates one into the other for the protocol.
	// The exception is apns.StatusShutdown: it accepts the message and tells the client
	// that it was the last. An *apns.PushError is sent as it is, with any ID. A Fault does
	// what its fields say. Any other error rejects the message with
	// apns.StatusProcessingError or, over HTTP/2, apns.ReasonInternalServerError.
	//
	// Over HTTP/2 apns.ReasonUnregistered and apns.ReasonExpiredToken say that the device
	// is dead since now. For another time use Unregister, or an *apns.PushError with DeadAt.
	Handler func(*apns.Message) error

	// OnChannelCall, unless nil, is called for each call to the channel management service
	// that passes the server's own checks, before the call takes effect. The operation is
	// create, read, list or delete. The channel is the ID of the channel for read and
	// delete, and otherwise empty. An error has the same meaning as one that a Handler
	// returns: with a Fault whose Err is apns.StatusNoError the call takes effect.
	OnChannelCall func(operation, channel string) error

	// OnConnect, unless nil, is called for each connection after its TLS handshake. The
	// port is apns.ProviderPort, apns.PushPort, apns.FeedbackPort or ChannelsPort. An error
	// has the same meaning as one that a Handler returns, and ends the connection before
	// anything is read. Over HTTP/2 its reason is sent in a GOAWAY. Nil and
	// apns.StatusNoError let the connection continue.
	//
	// The feedback service sends nothing but its list. With a Fault without an Err it
	// sends the list and ends as the Fault says. With any other error it closes the
	// connection and keeps the list for the next client.
	OnConnect func(port int, state tls.ConnectionState) error

	// Barrier is the error for a barrier: the message without token and payload that
	// apns.Conn.Shutdown sends to confirm that all messages before it were accepted. It
	// has the same meaning as one that a Handler returns. Nil means
	// apns.StatusMissingToken. With apns.StatusNoError the gateway never answers.
	Barrier error

	// Lenient turns off the checks of what a message says: the content of the payload, and
	// whether push type, topic, priority and payload fit together. Sizes, the form of
	// header fields and credentials are still checked.
	//
	// By default the server is as strict as Apple's. Over HTTP/2 it rejects what Apple's
	// server rejects. What Apple's server accepts, and Apple may then drop silently, it
	// accepts. Record.Findings says which rules a message breaks: see Check.
	Lenient bool

	// Latency is how long after a message the server answers it. Zero means at once. Over
	// HTTP/2 the server goes on with later messages in the meantime, so that the stream
	// limit decides how many messages a second a connection takes. On the binary protocol
	// only a rejection is an answer: the server discards what follows the message while it
	// waits to send the error packet. A Fault.Delay is in addition.
	Latency time.Duration

	// MaxRecords is how many records the server keeps: the latest. Zero means 100,000. A
	// negative number means none. A record needs about 500 bytes and the payload.
	MaxRecords int

	// KeepRaw makes a Record keep what the client sent as well: see Record.Header and
	// Record.Encoded. A record then needs about 1,500 bytes and the payload.
	KeepRaw bool

	// StreamLimit is how many messages a connection may have in flight over HTTP/2.
	// Zero means 1,000. A negative number allows none until SetStreamLimit does.
	StreamLimit int

	// HTTP2 sets further limits for HTTP/2 clients. The zero value means the defaults.
	HTTP2 HTTP2Settings

	// HTTP2Addr, PushAddr, FeedbackAddr and ChannelsAddr are the addresses that the
	// services listen on: a host and a port, where port 0 means a free one. Empty means
	// 127.0.0.1 and a free port. In memory the address can be anything, and empty means
	// localhost and the well-known port. Start fills in the actual address.
	HTTP2Addr, PushAddr, FeedbackAddr, ChannelsAddr string

	// InMemory makes the services listen on a network in memory, which only the
	// DialContext of Config can reach. In a testing/synctest bubble, create and close the
	// server inside the bubble, since code in a bubble must not use channels from outside.
	//
	// The network behaves as TCP does. A write returns before the data is read, as long
	// as there is room in the buffer. A write to a peer that has closed succeeds and draws
	// a reset. The reset arrives a millisecond later and, as on some systems, discards
	// what was received and is not read yet.
	InMemory bool

	// BufferSize is the size of the buffer in each direction of a connection in memory,
	// in bytes. Zero means 64 KiB.
	BufferSize int

	// TLS is the configuration to start from. Nil means the zero tls.Config. Without
	// certificates the server uses its own, and without ClientCAs it trusts the client
	// certificates that it signed itself. Without ClientAuth it requires a client
	// certificate on the binary protocol. Over HTTP/2 it requires none, since a provider
	// token is enough.
	TLS *tls.Config

	certs    *authority
	authKey  []byte     // the .p8 file
	services []*service // set by Start
	closing  chan struct{}
	running  sync.WaitGroup

	mu       sync.Mutex // protects following
	changed  *sync.Cond // signals a change of records or closed
	records  recordList
	feedback []apns.Feedback
	conns    map[*conn]struct{}
	accepted int  // how many connections were accepted
	refusing bool // connections are refused
	closed   bool

	// Of the HTTP/2 provider API:
	http2      map[*http2Conn]struct{}
	announced  announcement
	keys       map[string]authKey // by key ID
	devices    map[string]device  // by token, in lower case
	registered bool               // Register was called
	channels   map[string]*app    // by bundle ID
}

// A device is what the server knows about a device token.
type device struct {
	topics map[string]bool
	deadAt time.Time // zero while the device has the app
}

// NewServer starts a server on loopback. The handler may be nil. NewServer panics if the
// server cannot listen. In a testing/synctest bubble use InMemory instead, since a real
// socket stops the simulated time.
func NewServer(handler func(*apns.Message) error) *Server {
	s := NewUnstartedServer(handler)
	s.Start()
	return s
}

// NewUnstartedServer returns a server that is not started. Set its fields, then call
// Start.
func NewUnstartedServer(handler func(*apns.Message) error) *Server {
	s := &Server{
		Handler:  handler,
		closing:  make(chan struct{}),
		conns:    make(map[*conn]struct{}),
		http2:    make(map[*http2Conn]struct{}),
		keys:     make(map[string]authKey),
		devices:  make(map[string]device),
		channels: make(map[string]*app),
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// Start starts the server. It panics if the server cannot listen, or if a setting is out
// of its range.
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
		{ports: []int{ChannelsPort}, names: []string{apns.ChannelsProduction, apns.ChannelsSandbox}, addr: &s.ChannelsAddr, tls: http2, serve: s.serveChannels},
	}
	for _, sv := range s.services {
		if err := s.listen(sv); err != nil {
			s.stopListening()
			panic(fmt.Sprintf("apnstest: cannot listen: %v", err))
		}
	}
}

// mustBeStarted panics if the server is not started.
func (s *Server) mustBeStarted() {
	if s.certs == nil {
		panic("apnstest: the server is not started")
	}
}

// Close closes all connections, and returns when all goroutines of the server have
// ended. A message in flight may go unrecorded.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
		s.stopListening()
		for c := range s.conns {
			c.close()
		}
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
}

// Config returns a new configuration with which apns.Dial connects to the server. The
// port of the address selects the service: it is the well-known port of the service, or
// the port that the service listens on. The addresses apns.ChannelsProduction and
// apns.ChannelsSandbox, which have the ports of other services, select channel management.
// The host may be any name. An IP address must be one that the server listens on, since the
// certificate is for that address.
func (s *Server) Config() *apns.Config {
	s.mustBeStarted()
	return &apns.Config{
		TLS:         s.certs.clientConfig(),
		DialContext: s.dial,
	}
}

// TokenConfig returns the configuration of Config with an authentication key, which has
// KeyID and TeamID, in place of the client certificate. Its BundleID is the constant BundleID,
// for messages without one. It is for HTTP/2.
func (s *Server) TokenConfig() *apns.Config {
	config := s.Config()
	config.TLS.Certificates = nil
	config.BundleID = BundleID
	var err error
	if config.Key, err = apns.ParseAuthKey(s.authKey, KeyID, TeamID); err != nil {
		panic("apnstest: " + err.Error())
	}
	return config
}

// AddAuthKey creates another authentication key that the server accepts, and returns it
// in the format of a .p8 file. Each ID has 10 digits and capital letters, as those that
// apns.ParseAuthKey takes.
func (s *Server) AddAuthKey(keyID, teamID string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addAuthKey(keyID, teamID)
}

// Register registers device tokens for a topic. From the first call on, the server
// rejects a token that is not registered, or not registered for the topic of its message.
// Register also reverses Unregister for the tokens.
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

// Unregister makes the server report that the token's device lost the app at the given
// time. Over HTTP/2 the response to a message reports it. On the binary protocol the
// feedback service reports it, and the gateway still accepts messages for the token.
// Unregister panics if a feedback record cannot be encoded, as AddFeedback does.
func (s *Server) Unregister(token string, deadAt time.Time) {
	s.AddFeedback(apns.Feedback{Token: token, DeadAt: deadAt})
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[strings.ToLower(token)]
	d.deadAt = deadAt
	s.devices[strings.ToLower(token)] = d
}

// trackHTTP2 adds a connection to those that SetStreamLimit and SetInitialWindow reach, or
// removes it.
func (s *Server) trackHTTP2(h *http2Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.http2[h] = struct{}{}
	} else {
		delete(s.http2, h)
	}
}

// Certificates returns the server's certificates and keys, for programs that connect to
// it without Config.
func (s *Server) Certificates() Certificates {
	s.mustBeStarted()
	cs := s.certs.pem()
	cs.AuthKey = s.authKey
	return cs
}

// RefuseConnections sets whether the server refuses new connections. Open connections stay
// open. It panics if the server cannot listen again.
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
			time.Sleep(10 * time.Millisecond) // an outgoing connection may use the port for a moment
			err = s.listen(sv)
		}
		if err != nil {
			panic(fmt.Sprintf("apnstest: cannot listen again: %v", err))
		}
	}
}

// AddFeedback adds records to the list of the feedback service. The service sends the
// list to the next client, and then the list is empty. AddFeedback panics for a record
// that cannot be encoded.
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
