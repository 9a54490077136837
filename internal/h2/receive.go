package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"example.com/apns/internal/hpack"
)

// Read reads once from the connection and returns the outcomes that it brought, in
// the order in which the server sent them; those of a GOAWAY come in any order. They
// are valid until the next Read. Only the reader may call it. An error ends the
// connection, but the outcomes that are returned with it are good.
//
// After each Read, wake the writer if Pending is true. Read itself waits for Flush
// while too many replies are queued.
func (c *Conn) Read() ([]Outcome, error) {
	c.recycle()
	c.mu.Lock()
	for c.replies > maxReplies && !c.closed {
		c.flushed.Wait()
	}
	c.mu.Unlock()
	err := c.reader.Fill()
	for err == nil {
		var f Frame
		var ok bool
		f, ok, err = c.reader.Next()
		if err == nil {
			if !ok {
				return c.outcomes, nil
			}
			err = c.handle(&f)
		}
		if s, ok := errors.AsType[*StreamError](err); ok {
			err = c.handleStreamError(s)
		}
	}
	if e, ok := errors.AsType[*ConnError](err); ok {
		if bytes.HasPrefix(c.reader.Unread(), []byte("HTTP/1.")) && !c.Ready() {
			err = fmt.Errorf("the server speaks HTTP/1: %.60q", c.reader.Unread())
		}
		c.Close(e.Code)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
	return c.outcomes, err
}

// recycle makes the responses of the last Read ready to be used again.
func (c *Conn) recycle() {
	for _, r := range c.reported {
		c.reuse(r)
	}
	clear(c.reported)
	clear(c.outcomes)
	c.outcomes, c.reported = c.outcomes[:0], c.reported[:0]
}

// reuse keeps a response for another request, unless it is larger than any of APNs:
// a thousand of those would be kept as long as the connection.
func (c *Conn) reuse(r *Response) {
	if cap(r.Body)+cap(r.fields) <= maxReused {
		r.clear()
		c.unused = append(c.unused, r)
	}
}

func (c *Conn) newResponse() *Response {
	n := len(c.unused)
	if n == 0 {
		return new(Response)
	}
	r := c.unused[n-1]
	c.unused = c.unused[:n-1]
	return r
}

// report adds an outcome to those that Read returns.
func (c *Conn) report(o Outcome) {
	c.outcomes = append(c.outcomes, o)
	if o.Response != nil {
		c.reported = append(c.reported, o.Response)
	}
}

// handle takes a frame from the server.
func (c *Conn) handle(f *Frame) error {
	if f.Type == TypeHeaders {
		return c.handleHeaders(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.checkFirstLocked(f); err != nil {
		return err
	}
	switch f.Type {
	case TypeData:
		return c.handleDataLocked(f)
	case TypeRSTStream:
		return c.handleResetLocked(f)
	case TypeSettings:
		return c.handleSettingsLocked(f)
	case TypePushPromise:
		return connError(CodeProtocol, "PUSH_PROMISE, which this client does not allow")
	case TypePing:
		return c.handlePingLocked(f)
	case TypeGoAway:
		return c.handleGoAwayLocked(f)
	case TypeWindowUpdate:
		return c.handleWindowUpdateLocked(f)
	}
	return c.oddLocked() // PRIORITY, and what is not known
}

// checkFirstLocked enforces that the server begins with SETTINGS (RFC 9113, section
// 3.4). It may end the connection before, with a GOAWAY.
func (c *Conn) checkFirstLocked(f *Frame) error {
	if !c.ready && f.Type != TypeGoAway && (f.Type != TypeSettings || f.Has(FlagAck)) {
		return connError(CodeProtocol, "the server's first frame is %v, expected SETTINGS", f.Type)
	}
	return nil
}

// oddLocked counts a frame that is legal and of no use.
func (c *Conn) oddLocked() error {
	if c.odd++; c.odd > maxOdd+c.answers {
		return connError(CodeEnhanceYourCalm, "%d frames of no use", c.odd)
	}
	return nil
}

// countReplyLocked counts a reply that the server asks for, and reports whether to send
// it. Once the connection is closed Read does not wait for Flush any more, and so replies
// could pile up.
func (c *Conn) countReplyLocked() bool {
	c.replies++
	return !c.closed || c.replies <= maxReplies
}

// lookupLocked returns the stream of a frame. It is nil if the stream has its
// outcome: then the frame is dropped, and frees the slot if it is the stream's last.
// A frame of a stream that was never opened ends the connection (RFC 9113, section
// 5.1).
func (c *Conn) lookupLocked(f *Frame) (*stream, error) {
	if c.isIdleLocked(f.Stream) {
		return nil, connError(CodeProtocol, "%v of stream %d, which is not open", f.Type, f.Stream)
	}
	s := c.streams.get(f.Stream)
	if s != nil && !s.abandoned {
		return s, nil
	}
	last := f.Type == TypeRSTStream || (f.Type == TypeHeaders || f.Type == TypeData) && f.Has(FlagEndStream)
	if s != nil && last {
		c.streams.remove(s)
	}
	return nil, c.oddLocked()
}

// isIdleLocked reports whether the server cannot have heard of a stream.
func (c *Conn) isIdleLocked(id uint32) bool {
	if id%2 == 0 || id >= c.next {
		return true
	}
	s := c.streams.get(id)
	return s != nil && !s.abandoned && s.opened == c.taken
}

// addField takes a field of the block that is being decoded.
func (c *Conn) addField(name, value []byte) {
	c.validator.Add(name, value)
	if len(name) > 0 && name[0] != ':' {
		c.decoding.add(name, value)
	}
}

// handleHeaders takes a response, a 1xx response or trailers.
func (c *Conn) handleHeaders(f *Frame) error {
	c.mu.Lock()
	err := c.checkFirstLocked(f)
	var s *stream
	if err == nil {
		s, err = c.lookupLocked(f)
	}
	section := ResponseHeader
	if s != nil && s.response != nil {
		section = Trailer
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	// A block is decoded whatever becomes of its stream, since it may change the
	// table.
	r, fault, err := c.decode(f.Payload, section)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// It may have been cancelled meanwhile.
	if s = c.streams.get(f.Stream); s == nil || s.abandoned || section == Trailer || r.Status < 200 {
		c.reuse(r)
	}
	switch ends := f.Has(FlagEndStream); {
	case s == nil:
	case s.abandoned && ends:
		c.streams.remove(s)
	case s.abandoned:
	case fault != "":
		if section != Trailer && r.Status >= 200 {
			s.response = r
		}
		c.malformedLocked(s, CodeProtocol, fault)
	case section == Trailer && !ends:
		c.malformedLocked(s, CodeProtocol, "HEADERS in the middle of the body")
	case section == Trailer:
		c.answeredLocked(s)
	case c.validator.Status() < 200 && ends:
		c.malformedLocked(s, CodeProtocol, fmt.Sprintf("status %d and no final response", c.validator.Status()))
	case c.validator.Status() < 200:
		if s.skipped++; s.skipped > maxInformational {
			c.malformedLocked(s, CodeEnhanceYourCalm, fmt.Sprintf("more than %d responses with status 1xx", maxInformational))
		}
	default:
		s.response = r
		if ends {
			c.answeredLocked(s)
		}
	}
	return nil
}

// decode decodes a header block, and says what is wrong with the section that it has.
func (c *Conn) decode(block []byte, section Section) (r *Response, fault string, err error) {
	r = c.newResponse()
	c.decoding = r
	c.validator.Reset(section)
	err = c.decoder.Decode(block, c.emit)
	switch {
	case errors.Is(err, hpack.ErrListSize):
		return nil, "", connError(CodeEnhanceYourCalm, "%v", err)
	case err != nil:
		return nil, "", connError(CodeCompression, "%v", err)
	}
	fault = c.validator.Malformed()
	if r.list > maxList && fault == "" {
		fault = fmt.Sprintf("a header of %d bytes, expected at most %d", r.list, maxList)
	}
	r.Status, r.length = c.validator.Status(), c.validator.ContentLength()
	return r, fault, nil
}

// answeredLocked takes the end of a response.
func (c *Conn) answeredLocked(s *stream) {
	r := s.response
	r.Whole = true
	if r.length >= 0 && r.length != r.size && r.Status != 304 {
		c.malformedLocked(s, CodeProtocol, fmt.Sprintf("a body of %d bytes, expected %d by its content-length", r.size, r.length))
		return
	}
	c.answers++
	c.report(c.outcomeLocked(s))
	if s.end == 0 {
		// The rest of the request is not wanted. The server learns that before it
		// sees another stream, so that this one need not count any longer.
		c.out = AppendRSTStream(c.out, s.id, CodeCancel)
		c.replies++
	}
	c.streams.remove(s)
}

// malformedLocked reports a response that breaks the rules, and resets its stream.
func (c *Conn) malformedLocked(s *stream, code Code, fault string) {
	o := Outcome{Tag: s.tag, Stream: s.id, Kind: Malformed, Text: fault}
	if !c.isSentLocked(s) {
		o.Kind = Unprocessed
	} else if s.response != nil && s.response.Status != 0 {
		o.Response = s.response
	}
	c.report(o)
	c.abandonLocked(s, code)
	c.replies++
}

func (c *Conn) handleDataLocked(f *Frame) error {
	if c.credit += f.Size; c.credit > connWindow {
		return connError(CodeFlowControl, "more DATA than the window of the connection")
	}
	ends := f.Has(FlagEndStream)
	if len(f.Payload) == 0 && !ends {
		if c.empty++; c.empty > maxEmpty+c.answers {
			return connError(CodeEnhanceYourCalm, "%d empty DATA frames", c.empty)
		}
	}
	s, err := c.lookupLocked(f)
	if s == nil {
		return err
	}
	s.received += f.Size
	window, kept := streamWindow, maxBody
	if s.large > 0 {
		window, kept = s.large, s.large
	}
	switch {
	case s.response == nil:
		c.malformedLocked(s, CodeProtocol, "DATA before HEADERS")
		return nil
	case s.received > window:
		c.malformedLocked(s, CodeFlowControl, "more DATA than the window of the stream")
		return nil
	}
	s.response.addBody(f.Payload, kept)
	switch {
	case ends:
		c.answeredLocked(s)
	case s.received == window:
		// A body without end. The status is all that matters of it.
		c.answers++
		c.report(c.outcomeLocked(s))
		c.abandonLocked(s, CodeCancel)
		c.replies++
	}
	return nil
}

func (c *Conn) handleResetLocked(f *Frame) error {
	s, err := c.lookupLocked(f)
	if s == nil {
		return err
	}
	o := c.outcomeLocked(s)
	switch {
	case o.Kind != Lost:
	case f.Code() == CodeRefusedStream:
		o.Kind, o.Text = Unprocessed, "the server refused its stream (REFUSED_STREAM)"
	default:
		o.Kind, o.Code = Reset, f.Code()
	}
	c.report(o)
	c.streams.remove(s)
	return nil
}

// handleSettingsLocked applies the server's settings, and then acknowledges them:
// whatever is opened after that obeys them.
func (c *Conn) handleSettingsLocked(f *Frame) error {
	if f.Has(FlagAck) {
		if !c.ackDue {
			return connError(CodeProtocol, "an acknowledgement of SETTINGS that were not sent")
		}
		c.ackDue = false
		return nil
	}
	window := c.server.window
	err := f.Settings(func(setting Setting, value uint32) error {
		switch setting {
		case SettingHeaderTableSize:
			c.encoder.SetMaxTableSize(value)
		case SettingEnablePush:
			if value != 0 {
				return connError(CodeProtocol, "SETTINGS_ENABLE_PUSH of %d from a server, expected 0", value)
			}
		case SettingMaxConcurrentStreams:
			c.server.streams = int(min(value, maxStreams))
		case SettingInitialWindowSize:
			window = int64(value)
		case SettingMaxHeaderListSize:
			c.server.headerList = int64(value)
		}
		return nil
	})
	if err == nil && window != c.server.window { // once, since that looks at each stream
		err = c.setInitialWindowLocked(window)
	}
	if err != nil {
		return err
	}
	c.ready = true
	if c.countReplyLocked() {
		c.out = AppendSettingsAck(c.out)
	}
	return nil
}

// setInitialWindowLocked moves the windows of all streams, which may become
// negative (RFC 9113, section 6.9.2).
func (c *Conn) setInitialWindowLocked(n int64) error {
	change := n - c.server.window
	c.server.window = n
	for s := range c.streams.all() {
		if s.window += change; s.window > MaxWindow {
			return connError(CodeFlowControl, "SETTINGS_INITIAL_WINDOW_SIZE of %d makes the window of stream %d too large", n, s.id)
		}
	}
	c.unblocked = len(c.held) > 0
	return nil
}

func (c *Conn) handleWindowUpdateLocked(f *Frame) error {
	n := int64(f.Uint32())
	if f.Stream == 0 {
		if c.window += n; c.window > MaxWindow {
			return connError(CodeFlowControl, "WINDOW_UPDATE makes the window of the connection too large")
		}
		c.unblocked = len(c.held) > 0
		return nil
	}
	s, err := c.lookupLocked(f)
	if s == nil {
		return err
	}
	if s.window += n; s.window > MaxWindow {
		c.malformedLocked(s, CodeFlowControl, "WINDOW_UPDATE makes the window of the stream too large")
		return nil
	}
	c.unblocked = len(c.held) > 0
	return nil
}

func (c *Conn) handlePingLocked(f *Frame) error {
	if !f.Has(FlagAck) {
		if c.countReplyLocked() {
			c.out = AppendPing(c.out, FlagAck, [8]byte(f.Payload))
		}
		return nil
	}
	if !c.pinging || binary.BigEndian.Uint64(f.Payload) != c.pings {
		return c.oddLocked()
	}
	c.pinging = false
	for _, id := range c.confirmed {
		if s := c.streams.get(id); s != nil && s.abandoned {
			c.streams.remove(s)
		}
	}
	c.confirmed = c.confirmed[:0]
	if c.reset = c.streams.trim(c.reset); len(c.reset) > 0 {
		c.pingLocked()
	}
	return nil
}

func (c *Conn) handleGoAwayLocked(f *Frame) error {
	g := &GoAway{Last: f.Uint32(), Code: f.Code(), Debug: string(f.Payload[8:min(len(f.Payload), 8+maxDebug)])}
	if c.goAway != nil {
		if g.Last > c.goAway.Last {
			return connError(CodeProtocol, "GOAWAY with last stream %d after one with %d", g.Last, c.goAway.Last)
		}
		if err := c.oddLocked(); err != nil {
			return err
		}
	}
	c.goAway = g
	for s := range c.streams.all() {
		if s.id <= g.Last || s.abandoned {
			continue
		}
		o := c.outcomeLocked(s)
		if o.Kind == Lost {
			o.Kind = Unprocessed
		}
		o.Early = o.Kind == Answered
		c.report(o)
		c.streams.remove(s)
	}
	return nil
}

// handleStreamError resets the stream of a frame that breaks a rule.
func (c *Conn) handleStreamError(e *StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isIdleLocked(e.Stream) {
		return &ConnError{e.Code, e.Text}
	}
	s := c.streams.get(e.Stream)
	if s == nil || s.abandoned {
		return c.oddLocked()
	}
	c.malformedLocked(s, e.Code, e.Text)
	return nil
}
