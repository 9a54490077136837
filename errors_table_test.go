package apns_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/plain"
)

// Each error of a message matches exactly one of: a *PushError that rejects it, ErrNotSent,
// ErrInDoubt, ErrInvalid, ErrExpired. The tables go over all situations that the package
// has an error for.

// A situation is one that a message comes to.
type situation struct {
	name     string
	http2    func(t *testing.T) *apns.Config // leads to a server of HTTP/2
	binary   func(t *testing.T) *apns.Config // leads to a gateway
	message  func(m *apns.Message)           // changes the message
	settings func(c *apns.Client)
	deadline time.Duration // of the context
	cancel   time.Duration // when the context is cancelled
	notConn  bool          // it is not one of a Conn
	want     string
	matches  []error
	advice   apns.Action // where it is not the usual one of the outcome
}

func TestErrorsMatchOneClass(t *testing.T) {
	for _, table := range [][]situation{answerSituations(), ruleSituations(), endSituations(), dialSituations(), binarySituations()} {
		for _, s := range table {
			for _, all := range []bool{false, true} {
				if s.http2 != nil {
					t.Run(s.name+", HTTP/2, Client", func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { s.client(t, apns.Production, s.http2(t), all) })
					})
				}
				if s.binary != nil {
					t.Run(s.name+", binary, Client", func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { s.client(t, "gateway.push.apple.com:2195", s.binary(t), all) })
					})
				}
			}
			if s.http2 != nil && !s.notConn {
				t.Run(s.name+", HTTP/2, Conn", func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { s.conn(t, s.http2(t)) })
				})
			}
		}
	}
}

func (s *situation) context(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	switch {
	case s.deadline > 0:
		ctx, cancel = context.WithTimeout(t.Context(), s.deadline)
	case s.cancel > 0:
		time.AfterFunc(s.cancel, cancel)
	}
	return ctx, cancel
}

func (s *situation) newMessage() *apns.Message {
	m := message(7)
	m.Payload = []byte(`{"aps":{"alert":"` + payloadMark + `"}}`)
	if s.message != nil {
		s.message(m)
	}
	return m
}

func (s *situation) client(t *testing.T, addr string, config *apns.Config, all bool) {
	c := http2Client(t, config, func(c *apns.Client) { c.Addr, c.Attempts = addr, 2 })
	if s.settings != nil {
		s.settings(c)
	}
	ctx, cancel := s.context(t)
	defer cancel()
	m, log := s.newMessage(), logTo(config)
	err := pushOne(ctx, c, m, all)
	s.check(t, err)
	wantNoSecret(t, fmt.Sprint(err), m)
	wantNoSecret(t, log.String(), m)
	if got := c.Stats(); got.InFlight != 0 || got.Waiting != 0 {
		t.Errorf("Stats are %+v, want nothing in flight or waiting", got)
	}
	s.checkStats(t, c)
}

// checkStats checks that the outcome is counted once, by its class.
func (s *situation) checkStats(t *testing.T, c *apns.Client) {
	t.Helper()
	got := c.Stats()
	rejected := uint64(0)
	for _, n := range got.Rejected {
		rejected += n
	}
	for class, n := range map[string]uint64{
		"accepted": got.Accepted, "rejected": rejected, "invalid": got.Invalid,
		"expired": got.Expired, "not sent": got.NotSent, "in doubt": got.InDoubt,
	} {
		want := uint64(0)
		if class == s.want {
			want = 1
		}
		if n != want {
			t.Errorf("Stats are %+v, want 1 for %s and nothing else", got, s.want)
			return
		}
	}
}

func (s *situation) conn(t *testing.T, config *apns.Config) {
	m, log := s.newMessage(), logTo(config)
	c := dial(t, apns.Production, config)
	ctx, cancel := s.context(t)
	defer cancel()
	err := c.WritePushMsg(ctx, m)
	s.check(t, err)
	wantNoSecret(t, fmt.Sprint(err), m)
	wantNoSecret(t, log.String(), m)
}

func (s *situation) check(t *testing.T, err error) {
	t.Helper()
	wantClass(t, err, s.want, s.matches...)
	s.checkAdvice(t, err)
	// Half a packet has the error of ParseError in it, with its prefix.
	if err != nil && strings.Count(err.Error(), "apns: ") != 1 && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, want the prefix apns: once", err)
	}
}

// respondingWith returns the way to a server that gives each message the same answer.
func respondingWith(answer error) func(t *testing.T) *apns.Config {
	return func(t *testing.T) *apns.Config { return inMemory(t, always(answer)).Config() }
}

// saying returns the way to a peer that sends its SETTINGS, and then each of the frames
// after a second. Nil ends the connection.
func saying(frames ...[]byte) func(t *testing.T) *apns.Config {
	return func(t *testing.T) *apns.Config { return once(scriptedPeer(t, say(frames...))) }
}

// once returns a Config whose first dial alone succeeds.
func once(config *apns.Config) *apns.Config {
	next, used := config.DialContext, false
	config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if used {
			return nil, errors.New("no other server")
		}
		used = true
		return next(ctx, network, addr)
	}
	return config
}

// What the server answers: "Handling notification responses from APNs".
func answerSituations() (table []situation) {
	for _, r := range []apns.Reason{
		apns.ReasonBadCollapseID, apns.ReasonBadDeviceToken, apns.ReasonBadExpirationDate, apns.ReasonBadMessageID,
		apns.ReasonBadPriority, apns.ReasonBadTopic, apns.ReasonDeviceTokenNotForTopic, apns.ReasonDuplicateHeaders,
		apns.ReasonInvalidPushType, apns.ReasonMissingDeviceToken, apns.ReasonMissingTopic, apns.ReasonPayloadEmpty,
		apns.ReasonTopicDisallowed, apns.ReasonForbidden, apns.ReasonBadPath, apns.ReasonMethodNotAllowed,
		apns.ReasonPayloadTooLarge, apns.ReasonTopicMismatch, "NeverHeardOf",
	} {
		table = append(table, situation{name: string(r), http2: respondingWith(r), want: "rejected", matches: []error{r}})
	}
	for _, r := range []apns.Reason{apns.ReasonExpiredToken, apns.ReasonUnregistered} {
		table = append(table, situation{name: string(r), http2: respondingWith(r), want: "rejected", matches: []error{r}, advice: apns.ActionForget})
	}
	for _, r := range []apns.Reason{apns.ReasonTooManyRequests, apns.ReasonInternalServerError, apns.ReasonServiceUnavailable} {
		table = append(table, situation{name: string(r), http2: respondingWith(r), want: "rejected", matches: []error{r}, advice: apns.ActionResend})
	}
	for _, r := range []apns.Reason{apns.ReasonIdleTimeout, apns.ReasonShutdown, apns.ReasonUnrelatedKeyIDInToken, apns.ReasonTooManyProviderTokenUpdates} {
		table = append(table, situation{name: string(r), http2: respondingWith(r), want: "not sent", matches: []error{r}})
	}
	for _, r := range []apns.Reason{
		apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonInvalidProviderToken,
		apns.ReasonMissingProviderToken, apns.ReasonExpiredProviderToken, apns.ReasonBadEnvironmentKeyIDInToken, "BadEnvironmentKeyInToken",
	} {
		table = append(table, situation{name: string(r), http2: respondingWith(r), want: "not sent", matches: []error{r, apns.ErrRefused}, advice: apns.ActionFix})
	}
	for name, answer := range map[string]error{"400": &apns.PushError{HTTPStatus: 400}, "429": &apns.PushError{HTTPStatus: 429}, "431": &apns.PushError{HTTPStatus: 431}} {
		table = append(table, situation{name: name + " without a reason", http2: respondingWith(answer), want: "rejected"})
	}
	for _, code := range []int{201, 204, 301, 304, 408, 500, 502, 503, 504, 599} {
		table = append(table, situation{name: "a status without a reason", http2: respondingWith(&apns.PushError{HTTPStatus: code}), want: "in doubt"})
	}
	fault := func(f apnstest.Fault) func(t *testing.T) *apns.Config { return respondingWith(f) }
	answer := func(flags h2.Flags, block []byte) []byte {
		return h2.AppendHeaders(nil, flags, 1, block, h2.MinMaxFrameSize)
	}
	cut := answer(0, status("403"))
	cut = h2.AppendFrame(cut, h2.TypeData, 0, 1, []byte(`{"reason":"Inval`))
	noWindow := func(t *testing.T) *apns.Config {
		return inMemory(t, nil, func(s *apnstest.Server) { s.HTTP2.InitialWindow = -1 }).Config()
	}
	early := func(t *testing.T) *apns.Config {
		peer := framePeer{
			settings: []h2.SettingValue{{Setting: h2.SettingInitialWindowSize, Value: 0}},
			handle: func(f *h2.Frame) []byte {
				if f.Type != h2.TypeHeaders {
					return nil
				}
				return h2.AppendHeaders(nil, h2.FlagEndStream, f.Stream, status("502"), h2.MinMaxFrameSize)
			},
		}
		return once(scriptedPeer(t, peer.serve))
	}
	return append(table, []situation{
		{name: "accepted", http2: respondingWith(nil), want: "accepted"},
		{name: "REFUSED_STREAM", http2: fault(apnstest.Fault{End: apnstest.EndRefusedStream}), want: "not sent"},
		{name: "GOAWAY before it", http2: fault(apnstest.Fault{End: apnstest.EndGoAwayUnprocessed}), want: "not sent"},
		{name: "GOAWAY before it, with a reason", http2: fault(apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonShutdown}), want: "not sent", matches: []error{apns.ReasonShutdown}},
		{name: "GOAWAY that refuses the sender", http2: fault(apnstest.Fault{End: apnstest.EndGoAwayUnprocessed, Reason: apns.ReasonBadCertificate}), want: "not sent", matches: []error{apns.ErrRefused}, advice: apns.ActionFix},
		{name: "GOAWAY after it", http2: saying(h2.AppendGoAway(nil, 1, 0, nil), nil), want: "in doubt"},
		{name: "GOAWAY after it that refuses the sender", http2: saying(h2.AppendGoAway(nil, 1, 0, []byte(`{"reason":"BadCertificate"}`)), nil), want: "in doubt"},
		{name: "reset", http2: fault(apnstest.Fault{End: apnstest.EndRST}), want: "in doubt"},
		{name: "closed", http2: fault(apnstest.Fault{End: apnstest.EndFIN}), want: "in doubt"},
		{name: "malformed", http2: saying(answer(h2.FlagEndStream, status("many"))), want: "in doubt"},
		{name: "DATA before HEADERS", http2: saying(h2.AppendFrame(nil, h2.TypeData, 0, 1, []byte("x"))), want: "in doubt"},
		{name: "broken frames", http2: saying([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), want: "in doubt"},
		{name: "half a body", http2: saying(cut, nil), want: "rejected"},
		{name: "502 before the payload was sent", http2: early, want: "not sent"},
		{name: "no window", http2: noWindow, deadline: 5 * time.Second, want: "not sent", matches: []error{context.DeadlineExceeded}},
	}...)
}

// Which rule the message breaks, over HTTP/2 and on the binary protocol.
func ruleSituations() (table []situation) {
	server := func(t *testing.T) *apns.Config { return inMemory(t, nil).Config() }
	both := map[string]func(m *apns.Message){
		"no token":                       func(m *apns.Message) { m.Token = "" },
		"a token that is no hex":         func(m *apns.Message) { m.Token = strings.Repeat("xy", 32) },
		"a token of half a byte":         func(m *apns.Message) { m.Token = "abc" },
		"a token that is too long":       func(m *apns.Message) { m.Token = strings.Repeat("ab", 2049) },
		"no payload":                     func(m *apns.Message) { m.Payload = nil },
		"a payload that is too large":    func(m *apns.Message) { m.Payload = make([]byte, 5121) },
		"a priority that does not exist": func(m *apns.Message) { m.Priority = 7 },
	}
	for name, change := range both {
		table = append(table, situation{name: name, http2: server, binary: server, message: change, want: "invalid"})
	}
	for name, change := range map[string]func(m *apns.Message){
		"a topic with a line break":  func(m *apns.Message) { m.Topic = "a\nb" },
		"a push type with a space":   func(m *apns.Message) { m.PushType = " alert" },
		"a long collapse ID":         func(m *apns.Message) { m.CollapseID = strings.Repeat("x", 65) },
		"a collapse ID in UTF-8":     func(m *apns.Message) { m.CollapseID = "é" },
		"an APNs ID that is no UUID": func(m *apns.Message) { m.APNsID = "7" },
		"a forgotten push type":      func(m *apns.Message) { m.Payload = []byte(`{"aps":{"content-available":1}}`) },
	} {
		table = append(table, situation{name: name, http2: server, message: change, want: "invalid"})
	}
	noTopic := func(t *testing.T) *apns.Config {
		config := inMemory(t, nil).TokenConfig()
		config.BundleID = ""
		return config
	}
	noKey := func(t *testing.T) *apns.Config {
		config := inMemory(t, nil).TokenConfig()
		config.Key = new(apns.AuthKey)
		return config
	}
	small := func(t *testing.T) *apns.Config {
		return inMemory(t, nil, func(s *apnstest.Server) { s.HTTP2.MaxHeaderListSize = 100 }).Config()
	}
	return append(table, []situation{
		{name: "no topic", http2: noTopic, want: "invalid", matches: []error{apns.ReasonMissingTopic}},
		{name: "a key that cannot sign", http2: noKey, want: "not sent", advice: apns.ActionFix},
		{name: "a small header limit", http2: small, want: "not sent", advice: apns.ActionFix},
	}...)
}

// What ends while the message waits, backs off or is in flight.
func endSituations() []situation {
	silent := respondingWith(apnstest.Fault{End: apnstest.EndSilence})
	noStreams := func(t *testing.T) *apns.Config {
		return inMemory(t, nil, func(s *apnstest.Server) { s.StreamLimit = -1 }).Config()
	}
	closeAfter := func(d time.Duration) func(c *apns.Client) {
		return func(c *apns.Client) { time.AfterFunc(d, func() { c.Close() }) }
	}
	inTwo := func(c *apns.Client) { c.Timeout = 2 * time.Second }
	again := func(answers ...error) func(t *testing.T) *apns.Config {
		return func(t *testing.T) *apns.Config { return inMemory(t, inTurn(answers...)).Config() }
	}
	refused, lost := apnstest.Fault{End: apnstest.EndRefusedStream}, apnstest.Fault{End: apnstest.EndRST}
	tooMany := func(after time.Duration) error {
		return &apns.PushError{HTTPStatus: 429, Reason: apns.ReasonTooManyRequests, RetryAfter: after}
	}
	resend := func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 }
	soon := func(m *apns.Message) { m.Expiry = time.Now().Add(3 * time.Second) }
	return []situation{
		{name: "in flight, deadline", http2: silent, deadline: time.Second, want: "in doubt", matches: []error{context.DeadlineExceeded}},
		{name: "in flight, cancelled", http2: silent, cancel: time.Second, want: "in doubt", matches: []error{context.Canceled}},
		{name: "in flight, Timeout", http2: silent, settings: inTwo, notConn: true, want: "in doubt", matches: []error{context.DeadlineExceeded}},
		{name: "in flight, Close", http2: silent, settings: closeAfter(time.Second), notConn: true, want: "in doubt", matches: []error{net.ErrClosed}},
		{name: "queued, deadline", http2: noStreams, deadline: time.Second, want: "not sent", matches: []error{context.DeadlineExceeded}},
		{name: "queued, cancelled", http2: noStreams, cancel: time.Second, want: "not sent", matches: []error{context.Canceled}},
		{name: "queued, Timeout", http2: noStreams, settings: inTwo, notConn: true, want: "not sent", matches: []error{context.DeadlineExceeded}},
		{name: "queued, Close", http2: noStreams, settings: closeAfter(time.Second), notConn: true, want: "not sent", matches: []error{net.ErrClosed}},
		{name: "queued, the server dies", http2: func(t *testing.T) *apns.Config {
			return once(scriptedPeer(t, func(c net.Conn) {
				var reading sync.WaitGroup
				defer reading.Wait()
				defer c.Close()
				reading.Go(func() { io.Copy(io.Discard, c) })
				c.Write(setting(h2.SettingMaxConcurrentStreams, 0))
				time.Sleep(time.Second)
			}))
		}, deadline: 5 * time.Second, want: "not sent"},
		{name: "backing off after a 429, cancelled", http2: again(tooMany(time.Minute)), cancel: time.Second, settings: func(c *apns.Client) { c.Timeout = time.Hour }, notConn: true, want: "rejected", matches: []error{apns.ReasonTooManyRequests}, advice: apns.ActionResend},
		{name: "backing off after a 429, no time", http2: again(tooMany(time.Minute)), deadline: 10 * time.Second, want: "rejected", matches: []error{apns.ReasonTooManyRequests}, advice: apns.ActionResend},
		{name: "backing off after a 429, Close", http2: again(tooMany(30 * time.Second)), settings: closeAfter(time.Second), notConn: true, want: "rejected", matches: []error{apns.ReasonTooManyRequests}, advice: apns.ActionResend},
		{name: "backing off after REFUSED_STREAM, cancelled", http2: again(refused, refused, refused, refused), cancel: 150 * time.Millisecond, settings: func(c *apns.Client) { c.Attempts = 10 }, notConn: true, want: "not sent", matches: []error{context.Canceled}},
		{name: "backing off after too many tokens, Close", http2: again(apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyProviderTokenUpdates), settings: func(c *apns.Client) { c.Attempts = 10; closeAfter(time.Second / 4)(c) }, notConn: true, want: "not sent", matches: []error{net.ErrClosed}},
		{name: "in doubt, then rejected", http2: again(lost, apns.ReasonBadDeviceToken), settings: resend, notConn: true, want: "rejected", matches: []error{apns.ReasonBadDeviceToken}},
		{name: "in doubt, then throttled", http2: again(lost, tooMany(0), tooMany(0), tooMany(0)), settings: resend, notConn: true, want: "in doubt"},
		{name: "in doubt, then not processed", http2: again(lost, refused, refused, refused), settings: resend, notConn: true, want: "in doubt"},
		{name: "in doubt, then refused", http2: again(lost, apns.ReasonBadCertificate), settings: resend, notConn: true, want: "in doubt"},
		{name: "in doubt, then Close", http2: again(lost, tooMany(time.Minute)), settings: func(c *apns.Client) { resend(c); closeAfter(time.Second)(c) }, notConn: true, want: "in doubt"},
		{name: "in doubt, then expired", http2: again(lost, tooMany(5*time.Second)), message: soon, settings: resend, notConn: true, want: "in doubt"},
		{name: "in doubt, three times", http2: again(lost, lost, lost), settings: resend, notConn: true, want: "in doubt"},
		{name: "expired, backing off", http2: again(tooMany(5 * time.Second)), message: soon, notConn: true, want: "expired"},
	}
}

// Where there is no connection.
func dialSituations() []situation {
	failing := func(t *testing.T) *apns.Config {
		s := inMemory(t, nil)
		s.RefuseConnections(true)
		return s.Config()
	}
	noCert := func(version uint16) func(t *testing.T) *apns.Config {
		return func(t *testing.T) *apns.Config {
			config := inMemory(t, nil, func(s *apnstest.Server) { s.TLS = &tls.Config{MaxVersion: version} }).Config()
			config.TLS.Certificates = nil
			return config
		}
	}
	refusing := func(reason apns.Reason) func(t *testing.T) *apns.Config {
		return func(t *testing.T) *apns.Config {
			return inMemory(t, nil, func(s *apnstest.Server) { s.OnConnect = func(int, tlsState) error { return reason } }).Config()
		}
	}
	keyAndCert := func(t *testing.T) *apns.Config {
		server := inMemory(t, nil)
		config := server.TokenConfig()
		config.TLS = server.Config().TLS
		return config
	}
	untrusted := func(t *testing.T) *apns.Config {
		config := inMemory(t, nil).Config()
		config.TLS.RootCAs = inMemory(t, nil).Config().TLS.RootCAs
		return config
	}
	notTLS := func(t *testing.T) *apns.Config {
		config := scriptedPeer(t, func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); io.Copy(io.Discard, c) })
		next := config.DialContext
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := next(ctx, network, addr)
			return c.(*plain.Conn).Conn, err
		}
		return config
	}
	slow := func(t *testing.T) *apns.Config {
		config := inMemory(t, nil).Config()
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return config
	}
	closed := func(c *apns.Client) { c.Close() }
	ok := respondingWith(nil)
	return []situation{
		{name: "connection refused, Timeout", http2: failing, binary: failing, settings: func(c *apns.Client) { c.Timeout = 5 * time.Second }, notConn: true, want: "not sent", matches: []error{context.DeadlineExceeded}},
		{name: "connection refused, deadline", http2: failing, binary: failing, deadline: 5 * time.Second, notConn: true, want: "not sent", matches: []error{context.DeadlineExceeded}},
		{name: "connection refused, cancelled", http2: failing, binary: failing, cancel: time.Second, notConn: true, want: "not sent", matches: []error{context.Canceled}},
		{name: "connection refused, Close", http2: failing, binary: failing, settings: func(c *apns.Client) { time.AfterFunc(time.Second, func() { c.Close() }) }, notConn: true, want: "not sent", matches: []error{net.ErrClosed}},
		{name: "dialing, deadline", http2: slow, binary: slow, deadline: time.Second, notConn: true, want: "not sent", matches: []error{context.DeadlineExceeded}},
		{name: "dialing, cancelled", http2: slow, binary: slow, cancel: time.Second, notConn: true, want: "not sent", matches: []error{context.Canceled}},
		{name: "refused at connect", http2: refusing(apns.ReasonBadCertificate), notConn: true, want: "not sent", matches: []error{apns.ErrRefused, apns.ReasonBadCertificate}, advice: apns.ActionFix},
		{name: "no certificate, TLS 1.2", binary: noCert(tls.VersionTLS12), notConn: true, want: "not sent", advice: apns.ActionFix},
		{name: "no certificate, TLS 1.3", binary: noCert(tls.VersionTLS13), notConn: true, want: "not sent", matches: []error{apns.ErrRefused}, advice: apns.ActionFix},
		{name: "not trusted", http2: untrusted, binary: untrusted, notConn: true, want: "not sent", advice: apns.ActionFix},
		{name: "not TLS", http2: notTLS, binary: notTLS, notConn: true, want: "not sent"},
		{name: "a key and a certificate", http2: keyAndCert, binary: keyAndCert, notConn: true, want: "not sent", advice: apns.ActionFix},
		{name: "a bad address", http2: ok, settings: func(c *apns.Client) { c.Addr = "api.example.com" }, notConn: true, want: "not sent", advice: apns.ActionFix},
		{name: "closed", http2: ok, binary: ok, settings: closed, notConn: true, want: "not sent", matches: []error{net.ErrClosed}},
	}
}

// What a gateway says, and how its connections end: "Binary Provider API".
func binarySituations() (table []situation) {
	for status := range 256 {
		want := "rejected"
		if s := apns.Status(status); s == apns.StatusNoError || s == apns.StatusShutdown {
			want = "accepted"
		}
		s := situation{name: "status", binary: respondingWith(apns.Status(status)), want: want}
		if apns.Status(status) == apns.StatusProcessingError {
			s.advice = apns.ActionResend
		}
		table = append(table, s)
	}
	named := func(id uint32, status apns.Status) func(t *testing.T) *apns.Config {
		return respondingWith(&apns.PushError{ID: id, Status: status})
	}
	barrier := func(err error) func(t *testing.T) *apns.Config {
		return func(t *testing.T) *apns.Config {
			return inMemory(t, nil, func(s *apnstest.Server) { s.Barrier = err }).Config()
		}
	}
	soon := func(c *apns.Client) { c.Timeout = 4 * time.Second }
	for _, end := range []apnstest.End{apnstest.EndCloseNotify, apnstest.EndFIN, apnstest.EndFINThenRST, apnstest.EndRST} {
		table = append(table, situation{name: "ends with " + end.String(), binary: respondingWith(apnstest.Fault{End: end}), want: "in doubt"},
			situation{name: "ends after half a packet, " + end.String(), binary: respondingWith(apnstest.Fault{Err: apns.StatusInvalidToken, Cut: 3, End: end}), want: "in doubt"})
	}
	silent := barrier(apns.StatusNoError)
	return append(table, []situation{
		{name: "an unknown ID", binary: named(1<<31, apns.StatusInvalidToken), want: "in doubt"},
		{name: "ID 0", binary: named(0, apns.StatusProcessingError), want: "in doubt"},
		{name: "shutdown, ID 0", binary: named(0, apns.StatusShutdown), want: "not sent", matches: []error{apns.StatusShutdown}},
		{name: "shutdown, an unknown ID", binary: named(1<<31, apns.StatusShutdown), want: "in doubt"},
		{name: "no answer to the barrier, Timeout", binary: silent, settings: soon, want: "in doubt", matches: []error{context.DeadlineExceeded}},
		{name: "no answer to the barrier, deadline", binary: silent, deadline: 2 * time.Second, want: "in doubt", matches: []error{context.DeadlineExceeded}},
		{name: "no answer to the barrier, cancelled", binary: silent, cancel: 2 * time.Second, want: "in doubt", matches: []error{context.Canceled}},
		{name: "no answer to the barrier, Close", binary: silent, settings: func(c *apns.Client) { time.AfterFunc(time.Second, func() { c.Close() }) }, want: "in doubt", matches: []error{net.ErrClosed}},
		{name: "no answer to the barrier, AssumeAcceptedAfter", binary: silent, settings: func(c *apns.Client) { c.AssumeAcceptedAfter = time.Second }, want: "accepted"},
		{name: "not a gateway", binary: barrier(apnstest.Fault{End: apnstest.EndRST}), want: "in doubt"},
		{name: "in doubt, then shutdown", binary: func(t *testing.T) *apns.Config {
			return inMemory(t, inTurn(apnstest.Fault{End: apnstest.EndFIN}, &apns.PushError{Status: apns.StatusShutdown}, &apns.PushError{Status: apns.StatusShutdown})).Config()
		}, settings: func(c *apns.Client) { c.InDoubt, c.Attempts = apns.InDoubtResend, 3 }, want: "in doubt"},
		{name: "in doubt, then rejected", binary: func(t *testing.T) *apns.Config {
			return inMemory(t, inTurn(apnstest.Fault{End: apnstest.EndFIN}, apns.StatusInvalidToken)).Config()
		}, settings: func(c *apns.Client) { c.InDoubt = apns.InDoubtResend }, want: "rejected"},
	}...)
}

// The same of a Conn on the binary protocol, where nil says that the message was written.
func TestErrorsOfBinaryConn(t *testing.T) {
	open := func(t *testing.T, settings ...func(*apnstest.Server)) *apns.Conn {
		return dialPush(t, inMemory(t, nil, settings...))
	}
	deaf := func(s *apnstest.Server) {
		s.BufferSize = 1000
		s.OnConnect = func(int, tlsState) error { return apnstest.Fault{End: apnstest.EndSilence} }
	}
	fill := func(t *testing.T, c *apns.Conn, ctx context.Context) (err error) {
		for err == nil {
			err = c.WritePushMsg(ctx, message(1))
		}
		return err
	}
	for name, test := range map[string]struct {
		run     func(t *testing.T) error
		want    string
		matches []error
	}{
		"invalid": {func(t *testing.T) error {
			return open(t).WritePushMsg(t.Context(), &apns.Message{Token: "xyz", Payload: payload})
		}, "invalid", nil},
		"closed": {func(t *testing.T) error {
			c := open(t)
			c.Close()
			return c.WritePushMsg(t.Context(), message(1))
		}, "not sent", []error{net.ErrClosed}},
		"cancelled before": {func(t *testing.T) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			return open(t).WritePushMsg(ctx, message(1))
		}, "not sent", []error{context.Canceled}},
		"cut off in the middle": {func(t *testing.T) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return fill(t, open(t, deaf), ctx)
		}, "not sent", []error{context.DeadlineExceeded}},
		"after a rejection": {func(t *testing.T) error {
			c := dialPush(t, inMemory(t, rejecting(1, apns.StatusInvalidToken)))
			c.WritePushMsg(t.Context(), message(1))
			synctest.Wait()
			return c.WritePushMsg(t.Context(), message(2))
		}, "not sent", nil},
		"after the end": {func(t *testing.T) error {
			c := dialPush(t, inMemory(t, rejecting(1, apnstest.Fault{End: apnstest.EndRST})))
			c.WritePushMsg(t.Context(), message(1))
			time.Sleep(time.Second)
			return c.WritePushMsg(t.Context(), message(2))
		}, "not sent", nil},
		"after Shutdown": {func(t *testing.T) error {
			c := open(t)
			c.WritePushMsg(t.Context(), message(1))
			c.Shutdown(t.Context())
			return c.WritePushMsg(t.Context(), message(2))
		}, "not sent", []error{net.ErrClosed}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { wantClass(t, test.run(t), test.want, test.matches...) })
		})
	}
}
