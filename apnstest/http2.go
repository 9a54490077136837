package apnstest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// An http2Conn is the server's end of an HTTP/2 connection. Where RFC 9113 prescribes an
// error for what a client does, the client gets that error.
//
// One goroutine reads frames, calls the handler and responds. It does not read while a
// write blocks. So a client that sends and never reads is slowed down, and cannot make
// the server keep responses in memory. Delayed responses come from other goroutines.
type http2Conn struct {
	server   *Server
	conn     *conn
	manages  bool           // it serves channel management, and not the provider API
	settings HTTP2Settings  // with defaults filled in
	timers   sync.WaitGroup // of delayed responses

	// Of the goroutine that reads:
	r       *h2.Reader
	decoder *hpack.Decoder
	auth    authState

	gotSettings bool // the client's first SETTINGS were received
	tableSize   int  // of the client's header table in bytes, as the client last set it
	tableAcked  bool // the client has acknowledged the HeaderTableSize

	mu        durableMutex // protects following
	w         *bufio.Writer
	encoder   hpack.Encoder
	streams   map[uint32]*stream // open or half-closed: those that the stream limit counts
	closed    closedStreams
	announced announcements
	in        inflow // of the connection
	out       outflow
	blocked   []*stream // with a response that waits for a window; in the order of sending
	late      []lateAction
	lateTimer *time.Timer // runs actLate while late has actions

	lastOpened uint32 // the last stream that was opened
	highestID  uint32 // of the streams that the client has begun, including ignored ones
	goAwaySent bool
	goAwayLast uint32 // the last stream of the GOAWAY; later streams are ignored
}

// A durableMutex is a mutex that is held during writes, which may block for long. In
// testing/synctest a goroutine that waits for a sync.Mutex is not durably blocked, so the
// time of the bubble would stand still. One that waits for a durableMutex is.
type durableMutex chan struct{}

func (m durableMutex) Lock()   { m <- struct{}{} }
func (m durableMutex) Unlock() { <-m }

// serveHTTP2 serves the HTTP/2 provider API on a connection.
func (s *Server) serveHTTP2(c *conn) { s.serveRequests(c, apns.ProviderPort) }

// serveRequests serves the service with the port on a connection.
func (s *Server) serveRequests(c *conn, port int) {
	if c.tls.ConnectionState().NegotiatedProtocol != "h2" {
		return // Apple's API is HTTP/2 only
	}
	settings := s.HTTP2.withDefaults()
	h := &http2Conn{
		server:   s,
		conn:     c,
		manages:  port == ChannelsPort,
		settings: settings,
		r:        h2.NewReader(c.tls),
		// Until the client acknowledges a smaller size, it may use the default size.
		decoder:   hpack.NewDecoder(max(settings.HeaderTableSize, defaultHeaderTableSize), settings.MaxHeaderListSize),
		tableSize: defaultHeaderTableSize,
		auth:      newAuthState(s, c.tls.ConnectionState()),
		mu:        make(durableMutex, 1),
		w:         bufio.NewWriterSize(c.tls, 16<<10),
		streams:   make(map[uint32]*stream),
		announced: newAnnouncements(),
		out:       newOutflow(),
	}
	defer h.cancelDelayed()
	defer c.raw.Close() // ends writes that block
	h.mu.Lock()
	s.trackHTTP2(h, true)
	defer s.trackHTTP2(h, false)
	h.sendFirstSettingsLocked()
	h.w.Flush()
	h.mu.Unlock()
	if err := s.onConnect(c, port); actionFor(err, 0).ends {
		h.rejectConnection(err)
		return
	}
	err := h.read()
	if e, ok := errors.AsType[*h2.ConnError](err); ok {
		h.mu.Lock()
		h.goAwayLocked(h.lastProcessedLocked(), e.Code, []byte(e.Text))
		h.mu.Unlock()
	} else if err != nil {
		c.tls.Close()
		return
	}
	s.finish(c, Fault{}, nil, h.discard)
}

// rejectConnection ends a connection for which OnConnect returned an error.
func (h *http2Conn) rejectConnection(err error) {
	a := actionFor(err, 0)
	reason := a.fault.Reason
	if a.reply != nil {
		reason = toReason(a.reply)
	}
	var goAway []byte
	if a.reply != nil || a.fault.End == EndGoAway || a.fault.End == EndGoAwayUnprocessed {
		goAway = h2.AppendGoAway(nil, 0, h2.CodeNo, reasonJSON(reason, time.Time{}))
	}
	h.server.finish(h.conn, a.fault, goAway, h.discard)
}

func (h *http2Conn) discard() { io.Copy(io.Discard, h.conn.tls) }

// read reads frames. It returns nil once the connection is drained, or else the error that
// ends the connection.
func (h *http2Conn) read() error {
	if err := h.readPreface(); err != nil {
		return err
	}
	for {
		f, ok, err := h.r.Next()
		switch e, isStream := errors.AsType[*h2.StreamError](err); {
		case isStream:
			err = h.streamError(e)
		case err == nil && ok:
			err = h.handle(&f)
		case err == nil:
			err = h.fill()
		}
		if err != nil {
			return err
		}
		if h.drained() {
			return nil
		}
	}
}

func (h *http2Conn) readPreface() error {
	for {
		got := string(h.r.Unread())
		switch {
		case strings.HasPrefix(got, h2.Preface):
			h.r.Discard(len(h2.Preface))
			return nil
		case !strings.HasPrefix(h2.Preface, got):
			return connError(h2.CodeProtocol, "no HTTP/2 preface")
		}
		if err := h.fill(); err != nil {
			return err
		}
	}
}

// fill flushes what was written, and reads once from the connection.
func (h *http2Conn) fill() error {
	h.mu.Lock()
	h.w.Flush()
	h.mu.Unlock()
	return h.r.Fill()
}

func (h *http2Conn) handle(f *h2.Frame) error {
	if !h.gotSettings && (f.Type != h2.TypeSettings || f.Has(h2.FlagAck)) {
		return connError(h2.CodeProtocol, "the first frame is %v, expected SETTINGS", f.Type)
	}
	h.gotSettings = true
	switch f.Type {
	case h2.TypeHeaders:
		return h.headers(f)
	case h2.TypeData:
		return h.data(f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch f.Type {
	case h2.TypeSettings:
		return h.clientSettingsLocked(f)
	case h2.TypePing:
		if !f.Has(h2.FlagAck) {
			h.writeLocked(h2.AppendPing(h.bufferLocked(), h2.FlagAck, [8]byte(f.Payload)))
		}
	case h2.TypeWindowUpdate:
		return h.windowUpdateLocked(f)
	case h2.TypeRSTStream:
		if h.idleLocked(f.Stream) {
			return connError(h2.CodeProtocol, "RST_STREAM of stream %d, which is idle", f.Stream)
		}
		if st := h.streams[f.Stream]; st != nil {
			h.removeLocked(st)
		}
	case h2.TypePushPromise:
		return connError(h2.CodeProtocol, "PUSH_PROMISE from a client")
	}
	return nil // PRIORITY and GOAWAY have no effect; unknown types must be ignored
}

// clientSettingsLocked handles the client's SETTINGS, or its acknowledgement of the
// server's.
func (h *http2Conn) clientSettingsLocked(f *h2.Frame) error {
	if f.Has(h2.FlagAck) {
		if !h.announced.ack() {
			return connError(h2.CodeProtocol, "acknowledgement of SETTINGS that were not sent")
		}
		h.tableAcked = true // HeaderTableSize is in the first SETTINGS only
		return nil
	}
	err := f.Settings(func(s h2.Setting, value uint32) error {
		switch s {
		case h2.SettingHeaderTableSize:
			h.encoder.SetMaxTableSize(value)
		case h2.SettingInitialWindowSize:
			return h.setInitialWindowLocked(int(value))
		case h2.SettingMaxFrameSize:
			h.out.maxFrame = int(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.writeLocked(h2.AppendSettingsAck(h.bufferLocked()))
	h.unblockLocked()
	return nil
}

// bufferLocked and writeLocked write frames:
// h.writeLocked(h2.AppendPing(h.bufferLocked(), ...)). They ignore an error, since reads
// then fail as well.
func (h *http2Conn) bufferLocked() []byte { return h.w.AvailableBuffer() }
func (h *http2Conn) writeLocked(b []byte) { h.w.Write(b) }

func connError(code h2.Code, format string, args ...any) error {
	return &h2.ConnError{Code: code, Text: fmt.Sprintf(format, args...)}
}
