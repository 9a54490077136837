package apnstest

import (
	"cmp"
	"fmt"
	"math"

	"example.com/apns/internal/h2"
)

// HTTP2Settings has limits that the server announces to HTTP/2 clients and enforces. The
// zero value means the defaults.
type HTTP2Settings struct {
	// InitialWindow is SETTINGS_INITIAL_WINDOW_SIZE: how many bytes of a request's body a
	// client may send before the server allows more. Zero means 1 MiB. A negative number
	// announces 0: clients cannot send a body until SetInitialWindow allows it.
	InitialWindow int

	// ConnectionWindow is the window for all requests of a connection together, in bytes.
	// Zero means 1 GiB. The minimum is 65,535, with which every HTTP/2 connection begins.
	ConnectionWindow int

	// MaxHeaderListSize is SETTINGS_MAX_HEADER_LIST_SIZE: how many bytes the header of a
	// request may have. Each field counts as its name, its value and 32 bytes. The
	// response to a larger header has status 431, and the request is not recorded. Zero
	// means 16 KiB, which is also the maximum. A negative number announces 0.
	MaxHeaderListSize int

	// HeaderTableSize is SETTINGS_HEADER_TABLE_SIZE: how many bytes the header table may
	// have, with which a client compresses headers. Zero means 4,096. A negative number
	// announces 0: clients cannot use a table.
	HeaderTableSize int
}

const (
	defaultStreamLimit      = 1000
	defaultInitialWindow    = 1 << 20
	defaultConnectionWindow = 1 << 30
	minConnectionWindow     = h2.DefaultWindow // SETTINGS cannot change it
	maxHeaderList           = 16 << 10
	defaultHeaderTableSize  = 4096
	maxHeaderTableSize      = 1 << 20
)

// orDefault returns the value of a setting: the default for 0, and 0 for a negative
// number. It panics if the value is not between the minimum and the maximum.
func orDefault(name string, n, byDefault, minimum, maximum int) int {
	n = max(0, cmp.Or(n, byDefault))
	if n < minimum || n > maximum {
		panic(fmt.Sprintf("apnstest: %s is %d, expected %d to %d", name, n, minimum, maximum))
	}
	return n
}

// withDefaults returns the values that are announced.
func (s HTTP2Settings) withDefaults() HTTP2Settings {
	return HTTP2Settings{
		InitialWindow:     orDefault("InitialWindow", s.InitialWindow, defaultInitialWindow, 0, h2.MaxWindow),
		ConnectionWindow:  orDefault("ConnectionWindow", s.ConnectionWindow, defaultConnectionWindow, minConnectionWindow, h2.MaxWindow),
		MaxHeaderListSize: orDefault("MaxHeaderListSize", s.MaxHeaderListSize, maxHeaderList, 0, maxHeaderList),
		HeaderTableSize:   orDefault("HeaderTableSize", s.HeaderTableSize, defaultHeaderTableSize, 0, maxHeaderTableSize),
	}
}

// SetStreamLimit sets how many messages each connection may have in flight over HTTP/2,
// from now on. Zero allows none until the next call. A connection with provider tokens
// may have at most one until its first message is accepted. A client that does not
// read, and thus cannot be told, is disconnected after 5 s.
func (s *Server) SetStreamLimit(n int) {
	n = min(max(0, n), math.MaxInt32)
	s.setAnnounced(func(a *announcement) { a.limit = n })
}

// SetInitialWindow sets InitialWindow for all connections, in bytes, from now on.
// Zero announces 0. The windows of messages in flight change by the difference and may
// become negative (RFC 9113, section 6.9.2). A client that does not read, and thus cannot be
// told, is disconnected after 5 s. SetInitialWindow panics if n is negative or above 2^31-1.
func (s *Server) SetInitialWindow(n int) {
	if n < 0 || n > h2.MaxWindow {
		panic(fmt.Sprintf("apnstest: the initial window is %d, expected 0 to %d", n, h2.MaxWindow))
	}
	s.setAnnounced(func(a *announcement) { a.window = n })
}

func (s *Server) setAnnounced(change func(*announcement)) {
	s.mu.Lock()
	change(&s.announced)
	s.mu.Unlock()
	s.eachHTTP2(func(h *http2Conn) {
		h.announceLocked()
		h.w.Flush()
	})
}

// An announcement has the values of the settings that can change while a connection is
// open.
type announcement struct {
	limit  int // SETTINGS_MAX_CONCURRENT_STREAMS
	window int // SETTINGS_INITIAL_WINDOW_SIZE, in bytes
}

// announcementFor returns the current values for a connection. Without a certificate the
// stream limit is at most 1 until a message with a provider token is accepted.
func (s *Server) announcementFor(a *authState) announcement {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.announced
	if !a.cert && !a.trusted {
		now.limit = min(now.limit, 1)
	}
	return now
}

// Announcements are those of one connection. A client may use a new value as soon as it
// arrives, and must obey it once it has acknowledged it. In between the server allows
// whatever the old or the new value allows.
type announcements struct {
	last    announcement   // the last one sent
	pending []announcement // sent and not acknowledged
	acked   announcement   // the last one acknowledged
	allowed announcement   // the largest values of acked and pending
}

func newAnnouncements() announcements {
	// The values that hold before the first SETTINGS (RFC 9113, section 6.5.2).
	initial := announcement{limit: math.MaxInt, window: h2.DefaultWindow}
	return announcements{allowed: initial, acked: initial}
}

// ack handles the client's acknowledgement. It returns false if every announcement was
// acknowledged before.
func (a *announcements) ack() bool {
	if len(a.pending) == 0 {
		return false
	}
	a.acked, a.pending = a.pending[0], a.pending[1:]
	a.allow()
	return true
}

func (a *announcements) send(now announcement) {
	a.last = now
	a.pending = append(a.pending, now)
	a.allow()
}

func (a *announcements) allow() {
	a.allowed = a.acked
	for _, p := range a.pending {
		a.allowed.limit = max(a.allowed.limit, p.limit)
		a.allowed.window = max(a.allowed.window, p.window)
	}
}

// sendFirstSettingsLocked sends the first SETTINGS, and a WINDOW_UPDATE that gives the
// client the ConnectionWindow.
func (h *http2Conn) sendFirstSettingsLocked() {
	now := h.server.announcementFor(&h.auth)
	fixed := &h.settings
	values := []h2.SettingValue{
		{Setting: h2.SettingMaxConcurrentStreams, Value: uint32(now.limit)},
		{Setting: h2.SettingInitialWindowSize, Value: uint32(now.window)},
		{Setting: h2.SettingMaxHeaderListSize, Value: uint32(fixed.MaxHeaderListSize)},
	}
	if fixed.HeaderTableSize != defaultHeaderTableSize {
		values = append(values, h2.SettingValue{Setting: h2.SettingHeaderTableSize, Value: uint32(fixed.HeaderTableSize)})
	}
	h.announced.send(now)
	h.writeLocked(h2.AppendSettings(h.bufferLocked(), values...))
	if more := fixed.ConnectionWindow - h2.DefaultWindow; more > 0 {
		h.writeLocked(h2.AppendWindowUpdate(h.bufferLocked(), 0, uint32(more)))
	}
}

// announceLocked sends SETTINGS with the values that have changed, if any.
func (h *http2Conn) announceLocked() {
	before, now := h.announced.last, h.server.announcementFor(&h.auth)
	if now == before {
		return
	}
	var values []h2.SettingValue
	if now.limit != before.limit {
		values = append(values, h2.SettingValue{Setting: h2.SettingMaxConcurrentStreams, Value: uint32(now.limit)})
	}
	if now.window != before.window {
		values = append(values, h2.SettingValue{Setting: h2.SettingInitialWindowSize, Value: uint32(now.window)})
	}
	h.announced.send(now)
	h.writeLocked(h2.AppendSettings(h.bufferLocked(), values...))
	for _, st := range h.sortedStreamsLocked() {
		h.updateStreamWindowLocked(st)
	}
}
