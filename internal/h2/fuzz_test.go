package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// Frames of every type in any order, while the client opens, flushes, cancels, pings
// and closes: the outcomes and the frames that are sent are those of a model. See
// model_test.go.
func FuzzFrames(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(randomTape(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4000 {
			return // more of the same
		}
		play(t, b)
	})
}

// A server that sends any bytes. Read comes to an end, what grows is bounded, and
// each request has one outcome. The knobs are how many requests there are, the size
// of a read, when the client flushes and cancels, and whether SETTINGS come first.
func FuzzConn(f *testing.F) {
	all := func(frames ...[]byte) []byte { return slices.Concat(frames...) }
	const settled = 1 << 15
	f.Add(all(answer(1, "200"), answer(3, "200")), uint16(settled|2))
	f.Add(all(settings(), answer(1, "200")), uint16(0))
	f.Add(all(begin(1, "400"), data(1, h2.FlagEndStream, "why"), goAway(1)), uint16(settled|7))
	f.Add(all(ping(1), pong(1), windowUpdate(0, 9), windowUpdate(1, 9), reset(1, 7), reset(3, 8)), uint16(settled|1<<8|5))
	f.Add(all(setting(h2.SettingInitialWindowSize, 1), goAway(h2.MaxStream), goAway(3), goAway(0)), uint16(settled|3<<4|5))
	f.Add(continuations(3, "\x88"), uint16(settled|1))
	f.Add(all(headers(1, 0, ":status", "103"), headers(1, 0, ":status", "200", "content-length", "2"), data(1, 0, "xy"), headers(1, 1, "x", "y")), uint16(settled|0xff))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, knobs uint16) {
		var (
			n       = int(knobs & 0xf)
			part    = []int{1, 9, 100, 1 << 20}[knobs>>4&3]
			flushes = knobs>>6&1 != 0
			cancels = knobs>>7&1 != 0
			holds   = knobs>>8&1 != 0 // a part of the bodies
			fails   = knobs>>9&1 != 0 // the write of the last requests
		)
		c := newUnsettled(t)
		c.flush()
		if knobs&settled != 0 {
			c.receive(settings())
			c.flush()
		}
		if holds && c.Ready() {
			c.receive(setting(h2.SettingInitialWindowSize, 5))
		}
		opened := 0
		open := func() {
			for range n {
				stream, err := c.Open(request(strconv.Itoa(opened), "1234567"))
				if _, ok := errors.AsType[*h2.HeaderSizeError](err); err != nil && (!ok || stream != 0) {
					t.Fatalf("Open: got stream %d, %v", stream, err)
				}
				if stream != 0 {
					opened++
				}
			}
		}
		open()
		c.flush()
		c.sent()
		got := make(map[string]string) // the outcomes by tag
		add := func(outcomes ...h2.Outcome) {
			for _, o := range outcomes {
				tag := o.Tag.(string)
				if got[tag] != "" {
					t.Fatalf("request %s: got %q, and before %q", tag, text(o), got[tag])
				}
				got[tag] = text(o)
				checkJustified(t, c, b, o)
			}
		}
		c.script.reads = slices.Collect(slices.Chunk(b, part))
		for reads := 0; ; reads++ {
			if flushes && reads%2 == 0 || !c.Ready() || reads%50 == 0 {
				open()
				if fails && reads > 0 {
					c.script.room = 30
				}
				c.Flush() // or else Read would wait for it
				c.sent()
			}
			if cancels && reads%3 == 0 {
				if o, ok := c.Cancel(uint32(reads)); ok {
					add(o)
				}
			}
			outcomes, err := c.Read()
			add(outcomes...)
			out, slots, listed := c.Memory()
			if out > 3*h2.ReadSize+opened*300 || slots > 2*h2.MaxStreams || listed > 3*max(slots, h2.MinTable) {
				t.Fatalf("after %d reads: got %d bytes to be written, %d slots, %d streams in lists", reads, out, slots, listed)
			}
			if err != nil {
				break
			}
			if reads > len(b)+10 {
				t.Fatalf("Read has not come to an end after %d reads of %d bytes", reads, len(b))
			}
		}
		c.Flush()
		c.sent()
		add(c.Rest()...)
		if len(got) != opened || c.Active() != 0 {
			t.Fatalf("got %d outcomes, %d active, want %d, 0", len(got), c.Active(), opened)
		}
	})
}

// checkJustified checks that an outcome has a cause in what the server has sent, or
// in what the client has not.
func checkJustified(t *testing.T, c *client, b []byte, o h2.Outcome) {
	c.sent()
	cause := o.Kind == h2.Lost || o.Kind == h2.Unprocessed && c.sends.streams[o.Stream] != "ended"
	for r := newRawReader(b); !cause; {
		f, ok := r.next()
		if !ok {
			t.Fatalf("got %s of stream %d, for no reason in %x", text(o), o.Stream, b)
		}
		switch o.Kind {
		case h2.Answered:
			cause = f.kind == h2.TypeHeaders && f.stream == o.Stream
		case h2.Unprocessed:
			cause = f.kind == h2.TypeGoAway && len(f.payload) >= 8 && f.uint32(0)&h2.MaxStream < o.Stream ||
				f.kind == h2.TypeRSTStream && f.stream == o.Stream && bytes.Equal(f.payload, []byte{0, 0, 0, 7})
		case h2.Reset:
			cause = f.kind == h2.TypeRSTStream && f.stream == o.Stream && len(f.payload) == 4 && h2.Code(f.uint32(0)) == o.Code
		case h2.Malformed:
			cause = f.stream == o.Stream
		}
	}
}

// Frames that are cut at any points are the same as whole ones. What was read and is
// appended again reads the same.
func FuzzReader(f *testing.F) {
	var all []byte
	for _, test := range golden {
		all = append(all, unhex(f, test.want)...)
	}
	f.Add(all, []byte{1, 9, 10})
	f.Add(all, []byte{255})
	for _, test := range readerRules {
		if len(test.b) < 1000 {
			f.Add(test.b, []byte{3})
		}
	}
	f.Fuzz(func(t *testing.T, b, cuts []byte) {
		whole, wholeErr := readAll(b, max(1, len(b)))
		parts, partsErr := readCut(b, cuts)
		if !slices.EqualFunc(whole, parts, sameFrame) || describeError(wholeErr) != describeError(partsErr) {
			t.Fatalf("in one piece: got %+v, %v\ncut at %v: %+v, %v", whole, wholeErr, cuts, parts, partsErr)
		}
		for _, f := range whole {
			for _, again := range appendAgain(&f) {
				frames, err := readAll(again, len(again))
				want := f
				switch want.Type {
				case h2.TypeData:
					want.Flags &^= h2.FlagPadded
				case h2.TypeHeaders:
					want.Flags &^= h2.FlagPadded | h2.FlagPriority
				}
				if len(frames) == 1 {
					want.Size = frames[0].Size // without padding, or of the first frame of a block
				}
				if err != nil || len(frames) != 1 || !sameFrame(frames[0], want) {
					t.Fatalf("%+v was appended again as %x, which reads %+v, %v", f, again, frames, err)
				}
			}
		}
	})
}

// appendAgain appends a frame that was read, in each way that there is.
func appendAgain(f *h2.Frame) (all [][]byte) {
	flags := f.Flags
	switch f.Type {
	case h2.TypeHeaders:
		flags &^= h2.FlagPadded | h2.FlagPriority
		all = append(all, h2.AppendHeaders(nil, flags&^h2.FlagEndHeaders, f.Stream, f.Payload, 16384))
		return append(all, h2.AppendHeaders(nil, flags&^h2.FlagEndHeaders, f.Stream, f.Payload, 1+len(f.Payload)/(h2.MaxContinuations+1)))
	case h2.TypeData:
		flags &^= h2.FlagPadded
	}
	all = append(all, h2.AppendFrame(nil, f.Type, flags, f.Stream, f.Payload))
	if flags != 0 {
		return all
	}
	switch f.Type {
	case h2.TypeRSTStream:
		all = append(all, h2.AppendRSTStream(nil, f.Stream, f.Code()))
	case h2.TypeSettings:
		var s []h2.SettingValue
		f.Settings(func(setting h2.Setting, value uint32) error {
			s = append(s, h2.SettingValue{Setting: setting, Value: value})
			return nil
		})
		all = append(all, h2.AppendSettings(nil, s...))
	case h2.TypePing:
		all = append(all, h2.AppendPing(nil, 0, [8]byte(f.Payload)))
	}
	return all
}

// readCut is readAll of parts whose sizes are those in cuts, over and over.
func readCut(b, cuts []byte) (frames []h2.Frame, err error) {
	s := newScript()
	for i := 0; len(b) > 0; i++ {
		n := 1
		if len(cuts) > 0 {
			n = min(len(b), 1+int(cuts[i%len(cuts)]))
		}
		s.reads = append(s.reads, b[:n])
		b = b[n:]
	}
	r := h2.NewReader(s)
	for {
		f, ok, err := r.Next()
		switch {
		case err != nil:
			return frames, err
		case ok:
			f.Payload = slices.Clone(f.Payload)
			frames = append(frames, f)
			continue
		}
		if err := r.Fill(); errors.Is(err, errNothing) {
			return frames, nil
		} else if err != nil {
			return frames, err
		}
	}
}

// Any fields are taken or refused, and what is taken cannot be mistaken for the end
// of a field.
func FuzzValidator(f *testing.F) {
	f.Add(0, ":method\nPOST\n:scheme\nhttps\n:path\n/\nte\ntrailers")
	f.Add(1, ":status\n200\napns-id\nx\ncontent-length\n12")
	f.Add(2, "x-sum\n1")
	f.Fuzz(func(t *testing.T, section int, text string) {
		s := h2.Section(uint(section) % 3)
		words := strings.Split(text, "\n")
		words = words[:len(words)&^1]
		v := validate(s, words)
		fault := v.Malformed()
		if want := faultless(s, words); (fault == "") != want {
			t.Fatalf("section %d of %q: got %q, want it taken: %t", s, words, fault, want)
		}
		if fault == "" && s == h2.ResponseHeader && (v.Status() < 100 || v.Status() > 999 || v.Status() == 101) {
			t.Fatalf("%q: got status %d", words, v.Status())
		}
		if fault == "" && v.ContentLength() >= 0 && !slices.ContainsFunc(words, func(w string) bool {
			return strings.TrimLeft(w, "0") == strings.TrimLeft(fmt.Sprint(v.ContentLength()), "0")
		}) {
			t.Fatalf("%q: got content-length %d", words, v.ContentLength())
		}
	})
}

// faultless says whether a section keeps to RFC 9113, sections 8.1.1, 8.2 and 8.3, in
// the RFC's order.
func faultless(s h2.Section, words []string) bool {
	pseudo := map[string]int{}
	length := ""
	last := "" // regular field
	for nv := range slices.Chunk(words, 2) {
		name, value := nv[0], nv[1]
		if strings.ContainsAny(value, "\x00\r\n") || strings.Trim(value, " \t") != value {
			return false
		}
		if strings.HasPrefix(name, ":") {
			if pseudo[name]++; last != "" || value == "" && name != ":authority" {
				return false
			}
			if name == ":status" && (len(value) != 3 || strings.Trim(value, "0123456789") != "" || value < "100" || value == "101") {
				return false
			}
			continue
		}
		if last = name; name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r >= 0x7f || 'A' <= r && r <= 'Z' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
		}) {
			return false
		}
		switch name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			return false
		case "te":
			if value != "trailers" {
				return false
			}
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 63)
			if err != nil || length != "" && length != fmt.Sprint(n) {
				return false
			}
			length = fmt.Sprint(n)
		}
	}
	required := map[h2.Section][]string{h2.RequestHeader: {":method", ":scheme", ":path"}, h2.ResponseHeader: {":status"}, h2.Trailer: {}}[s]
	for _, name := range required {
		if pseudo[name] != 1 {
			return false
		}
		delete(pseudo, name)
	}
	if s == h2.RequestHeader && pseudo[":authority"] == 1 {
		delete(pseudo, ":authority")
	}
	return len(pseudo) == 0
}
