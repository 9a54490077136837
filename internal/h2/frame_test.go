package h2_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// unhex returns the bytes of hexadecimal digits; blanks are ignored.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden has frames byte by byte, what appends them, and what a Reader makes of
// them.
var golden = []struct {
	section string
	name    string
	got     []byte // by an Append function; nil: none appends this
	want    string
	read    h2.Frame
}{
	{"6.1", "DATA", data(1, h2.FlagEndStream, "hi"),
		"000002" + // length
			"00" + // DATA
			"01" + // END_STREAM
			"00000001" + // stream
			"6869",
		h2.Frame{Type: h2.TypeData, Flags: h2.FlagEndStream, Stream: 1, Payload: []byte("hi"), Size: 2}},
	{"6.1", "padded DATA", nil,
		"000006" + // length
			"00" + // DATA
			"08" + // PADDED
			"00000001" + // stream
			"03" + // of padding
			"6869" +
			"000000",
		h2.Frame{Type: h2.TypeData, Flags: h2.FlagPadded, Stream: 1, Payload: []byte("hi"), Size: 6}},
	{"6.1", "DATA of padding alone", nil,
		"000002" + // length
			"00" + // DATA
			"08" + // PADDED
			"00000001" + // stream
			"01" + // of padding
			"00",
		h2.Frame{Type: h2.TypeData, Flags: h2.FlagPadded, Stream: 1, Payload: []byte{}, Size: 2}},
	{"6.2", "HEADERS", h2.AppendHeaders(nil, h2.FlagEndStream, 3, []byte{0x88}, 16384),
		"000001" + // length
			"01" + // HEADERS
			"05" + // END_STREAM, END_HEADERS
			"00000003" + // stream
			"88", // :status: 200
		h2.Frame{Type: h2.TypeHeaders, Flags: h2.FlagEndStream | h2.FlagEndHeaders, Stream: 3, Payload: []byte{0x88}, Size: 1}},
	{"6.2", "HEADERS with padding and priority", nil,
		"000009" + // length
			"01" + // HEADERS
			"2c" + // PRIORITY, PADDED, END_HEADERS
			"00000003" + // stream
			"02" + // of padding
			"80000014" + // depends on stream 20 alone
			"0a" + // weight
			"88" + // :status: 200
			"0000",
		h2.Frame{Type: h2.TypeHeaders, Flags: h2.FlagPriority | h2.FlagPadded | h2.FlagEndHeaders, Stream: 3, Payload: []byte{0x88}, Size: 9}},
	{"6.2", "HEADERS without a block", h2.AppendHeaders(nil, 0, 3, nil, 16384),
		"000000" + // length
			"01" + // HEADERS
			"04" + // END_HEADERS
			"00000003", // stream
		h2.Frame{Type: h2.TypeHeaders, Flags: h2.FlagEndHeaders, Stream: 3, Payload: []byte{}, Size: 0}},
	{"6.3", "PRIORITY", nil,
		"000005" + // length
			"02" + // PRIORITY
			"00" + // no flags
			"00000003" + // stream
			"0000000b" + // depends on stream 11
			"07", // weight
		h2.Frame{Type: h2.TypePriority, Stream: 3, Payload: []byte{0, 0, 0, 11, 7}, Size: 5}},
	{"6.4", "RST_STREAM", h2.AppendRSTStream(nil, 5, h2.CodeCancel),
		"000004" + // length
			"03" + // RST_STREAM
			"00" + // no flags
			"00000005" + // stream
			"00000008", // CANCEL
		h2.Frame{Type: h2.TypeRSTStream, Stream: 5, Payload: []byte{0, 0, 0, 8}, Size: 4}},
	{"6.5", "SETTINGS", settings(h2.SettingValue{h2.SettingHeaderTableSize, 8192}, h2.SettingValue{h2.SettingMaxConcurrentStreams, 1<<32 - 1}),
		"00000c" + // length
			"04" + // SETTINGS
			"00" + // no flags
			"00000000" + // no stream
			"0001" + "00002000" + // HEADER_TABLE_SIZE
			"0003" + "ffffffff", // MAX_CONCURRENT_STREAMS
		h2.Frame{Type: h2.TypeSettings, Payload: []byte{0, 1, 0, 0, 0x20, 0, 0, 3, 0xff, 0xff, 0xff, 0xff}, Size: 12}},
	{"6.5", "empty SETTINGS", settings(),
		"000000" + // length
			"04" + // SETTINGS
			"00" + // no flags
			"00000000", // no stream
		h2.Frame{Type: h2.TypeSettings, Payload: []byte{}}},
	{"6.5", "acknowledgement of SETTINGS", h2.AppendSettingsAck(nil),
		"000000" + // length
			"04" + // SETTINGS
			"01" + // ACK
			"00000000", // no stream
		h2.Frame{Type: h2.TypeSettings, Flags: h2.FlagAck, Payload: []byte{}}},
	{"6.6", "PUSH_PROMISE", nil,
		"000005" + // length
			"05" + // PUSH_PROMISE
			"04" + // END_HEADERS
			"00000003" + // stream
			"00000002" + // promised stream
			"82", // :method: GET
		h2.Frame{Type: h2.TypePushPromise, Flags: h2.FlagEndHeaders, Stream: 3, Payload: []byte{0, 0, 0, 2, 0x82}, Size: 5}},
	{"6.7", "PING", h2.AppendPing(nil, 0, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}),
		"000008" + // length
			"06" + // PING
			"00" + // no flags
			"00000000" + // no stream
			"0102030405060708",
		h2.Frame{Type: h2.TypePing, Payload: []byte{1, 2, 3, 4, 5, 6, 7, 8}, Size: 8}},
	{"6.7", "answer to PING", h2.AppendPing(nil, h2.FlagAck, [8]byte{1}),
		"000008" + // length
			"06" + // PING
			"01" + // ACK
			"00000000" + // no stream
			"0100000000000000",
		h2.Frame{Type: h2.TypePing, Flags: h2.FlagAck, Payload: []byte{1, 0, 0, 0, 0, 0, 0, 0}, Size: 8}},
	{"6.8", "GOAWAY", h2.AppendGoAway(nil, h2.MaxStream, h2.CodeEnhanceYourCalm, []byte("why")),
		"00000b" + // length
			"07" + // GOAWAY
			"00" + // no flags
			"00000000" + // no stream
			"7fffffff" + // last stream
			"0000000b" + // ENHANCE_YOUR_CALM
			"776879",
		h2.Frame{Type: h2.TypeGoAway, Payload: []byte("\x7f\xff\xff\xff\x00\x00\x00\x0bwhy"), Size: 11}},
	{"6.9", "WINDOW_UPDATE", h2.AppendWindowUpdate(nil, 0, h2.MaxWindow),
		"000004" + // length
			"08" + // WINDOW_UPDATE
			"00" + // no flags
			"00000000" + // the connection
			"7fffffff", // increment
		h2.Frame{Type: h2.TypeWindowUpdate, Payload: []byte{0x7f, 0xff, 0xff, 0xff}, Size: 4}},
	{"6.10", "CONTINUATION", h2.AppendHeaders(nil, h2.FlagEndStream, 1, []byte("abcdefgh"), 3),
		"000003" + // length
			"01" + // HEADERS
			"01" + // END_STREAM
			"00000001" + // stream
			"616263" +
			"000003" + // length
			"09" + // CONTINUATION
			"00" + // no flags
			"00000001" + // stream
			"646566" +
			"000002" + // length
			"09" + // CONTINUATION
			"04" + // END_HEADERS
			"00000001" + // stream
			"6768",
		h2.Frame{Type: h2.TypeHeaders, Flags: h2.FlagEndStream | h2.FlagEndHeaders, Stream: 1, Payload: []byte("abcdefgh"), Size: 3}},
	{"6.10", "empty CONTINUATION", nil,
		"000001" + // length
			"01" + // HEADERS
			"00" + // no flags
			"00000001" + // stream
			"88" + // :status: 200
			"000000" + // length
			"09" + // CONTINUATION
			"00" + // no flags
			"00000001" + // stream
			"000000" + // length
			"09" + // CONTINUATION
			"04" + // END_HEADERS
			"00000001", // stream
		h2.Frame{Type: h2.TypeHeaders, Flags: h2.FlagEndHeaders, Stream: 1, Payload: []byte{0x88}, Size: 1}},
	{"4.1", "reserved bit and unused flags", nil,
		"000002" + // length
			"00" + // DATA
			"f7" + // all flags but PADDED
			"80000001" + // stream
			"6869",
		h2.Frame{Type: h2.TypeData, Flags: 0xf7, Stream: 1, Payload: []byte("hi"), Size: 2}},
	{"5.5", "unknown type", nil,
		"000002" + // length
			"ff" + // type
			"ff" + // flags
			"00000007" + // stream
			"6869",
		h2.Frame{Type: 0xff, Flags: 0xff, Stream: 7, Payload: []byte("hi"), Size: 2}},
}

func TestAppend(t *testing.T) {
	for _, test := range golden {
		if want := unhex(t, test.want); test.got != nil && !bytes.Equal(test.got, want) {
			t.Errorf("%s (section %s): got  %x\nwant %x", test.name, test.section, test.got, want)
		}
	}
}

// The Append functions append: what is there stays.
func TestAppendKeeps(t *testing.T) {
	block := []byte("0123456789")
	for name, add := range map[string]func(b []byte) []byte{
		"AppendFrame":        func(b []byte) []byte { return h2.AppendFrame(b, 9, 4, 1, block) },
		"AppendSettings":     func(b []byte) []byte { return h2.AppendSettings(b, h2.SettingValue{1, 2}) },
		"AppendSettingsAck":  h2.AppendSettingsAck,
		"AppendPing":         func(b []byte) []byte { return h2.AppendPing(b, 0, [8]byte{}) },
		"AppendGoAway":       func(b []byte) []byte { return h2.AppendGoAway(b, 1, 2, block) },
		"AppendRSTStream":    func(b []byte) []byte { return h2.AppendRSTStream(b, 1, 2) },
		"AppendWindowUpdate": func(b []byte) []byte { return h2.AppendWindowUpdate(b, 1, 2) },
		"AppendHeaders":      func(b []byte) []byte { return h2.AppendHeaders(b, 0, 1, block, 4) },
	} {
		alone := add(nil)
		if got, want := add([]byte("before")), "before"+string(alone); string(got) != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if string(block) != "0123456789" {
		t.Errorf("the block became %q", block)
	}
}

// A block is cut into frames of the size that is allowed, whatever its own size.
func TestAppendHeadersSizes(t *testing.T) {
	for size := range 20 {
		block := []byte("abcdefghijklmnopqrst")[:size]
		b := h2.AppendHeaders(nil, h2.FlagEndStream, 1, block, 5)
		frames := newRawReader(b).all()
		var joined []byte
		for i, f := range frames {
			joined = append(joined, f.payload...)
			wantKind, wantFlags := h2.TypeContinuation, h2.Flags(0)
			if i == 0 {
				wantKind, wantFlags = h2.TypeHeaders, h2.FlagEndStream
			}
			if i == len(frames)-1 {
				wantFlags |= h2.FlagEndHeaders
			}
			if f.kind != wantKind || f.flags != wantFlags || f.stream != 1 || len(f.payload) > 5 {
				t.Errorf("block of %d bytes, frame %d: got %v, flags %#x, stream %d, %d bytes, want %v, flags %#x, stream 1, at most 5 bytes",
					size, i, f.kind, f.flags, f.stream, len(f.payload), wantKind, wantFlags)
			}
		}
		if want := max(1, (size+4)/5); !bytes.Equal(joined, block) || len(frames) != want {
			t.Errorf("block of %d bytes: got %q in %d frames, want %q in %d", size, joined, len(frames), block, want)
		}
	}
}

// readAll has a Reader read b, in parts of so many bytes. The error is the first one,
// or nil.
func readAll(b []byte, part int) (frames []h2.Frame, err error) {
	s := newScript()
	for part := range slices.Chunk(b, part) {
		s.reads = append(s.reads, part)
	}
	r := h2.NewReader(s)
	for {
		if err := r.Fill(); err != nil {
			if err == errNothing {
				err = nil
			}
			return frames, err
		}
		for {
			f, ok, err := r.Next()
			if err != nil {
				return frames, err
			}
			if !ok {
				break
			}
			f.Payload = slices.Clone(f.Payload)
			frames = append(frames, f)
		}
	}
}

func sameFrame(a, b h2.Frame) bool {
	return a.Type == b.Type && a.Flags == b.Flags && a.Stream == b.Stream && a.Size == b.Size && bytes.Equal(a.Payload, b.Payload)
}

func TestReader(t *testing.T) {
	var all []byte
	var want []h2.Frame
	for _, test := range golden {
		b := unhex(t, test.want)
		frames, err := readAll(b, len(b))
		if err != nil || len(frames) != 1 || !sameFrame(frames[0], test.read) {
			t.Errorf("%s (section %s): got %+v, %v\nwant %+v", test.name, test.section, frames, err, test.read)
		}
		all = append(all, b...)
		want = append(want, test.read)
	}
	for _, part := range []int{1, 2, 3, 7, 8, 9, 10, 100, len(all)} {
		if frames, err := readAll(all, part); err != nil || !slices.EqualFunc(frames, want, sameFrame) {
			t.Errorf("all in parts of %d bytes: got %+v, %v\nwant %+v", part, frames, err, want)
		}
	}
}

// A Reader reads the largest frames that it has to take, one after the other.
func TestReaderLargeFrames(t *testing.T) {
	body := strings.Repeat("x", h2.MinMaxFrameSize)
	b := slices.Concat(data(1, 0, body), data(1, 0, body), data(1, 0, body), data(1, h2.FlagEndStream, body))
	for _, part := range []int{1000, h2.ReadSize, len(b)} {
		frames, err := readAll(b, part)
		if err != nil || len(frames) != 4 {
			t.Fatalf("parts of %d bytes: got %d frames, %v, want 4", part, len(frames), err)
		}
		for i, f := range frames {
			if string(f.Payload) != body {
				t.Errorf("parts of %d bytes, frame %d: got %d bytes, want %d equal ones", part, i, len(f.Payload), len(body))
			}
		}
	}
}

func TestReaderUnread(t *testing.T) {
	s := newScript()
	s.reads = [][]byte{[]byte(h2.Preface + "\x00\x00\x08"), []byte("\x06\x00\x00\x00\x00\x0012345678\x00")}
	r := h2.NewReader(s)
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Unread()), h2.Preface+"\x00\x00\x08"; got != want {
		t.Errorf("Unread: got %q, want %q", got, want)
	}
	r.Discard(len(h2.Preface))
	if _, ok, err := r.Next(); ok || err != nil {
		t.Errorf("Next of 3 bytes: got a frame %t, %v, want none", ok, err)
	}
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	if f, ok, err := r.Next(); !ok || err != nil || string(f.Payload) != "12345678" {
		t.Errorf("Next: got %+v, %t, %v, want a PING", f, ok, err)
	}
	if got := string(r.Unread()); got != "\x00" {
		t.Errorf("Unread: got %q, want one byte", got)
	}
	if err := r.Fill(); err != errNothing {
		t.Errorf("Fill at the end: got %v, want the error of the connection", err)
	}
}

// What comes with an error is not lost, and the error is not either.
func TestReaderFillError(t *testing.T) {
	r := h2.NewReader(&errorWithData{b: ping(1), err: io.ErrUnexpectedEOF})
	if err := r.Fill(); err != nil {
		t.Fatalf("Fill of a frame with an error: got %v, want nil", err)
	}
	if f, ok, err := r.Next(); !ok || err != nil || f.Type != h2.TypePing {
		t.Errorf("Next: got %+v, %t, %v, want a PING", f, ok, err)
	}
	if err := r.Fill(); err != io.ErrUnexpectedEOF {
		t.Errorf("second Fill: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// An errorWithData returns its error with the last bytes.
type errorWithData struct {
	b   []byte
	err error
}

func (r *errorWithData) Read(b []byte) (int, error) {
	n := copy(b, r.b)
	r.b = r.b[n:]
	return n, r.err
}

// The rules that a Reader enforces. The want is a connection error's code, or
// "stream" with the stream and the code of a stream error, or "" for no error.
var readerRules = []struct {
	section, name string
	b             []byte
	want          string
}{
	// Size. A frame is refused by its header alone.
	{"4.2", "a frame as large as it may be", data(1, 0, strings.Repeat("x", 16384)), ""},
	{"4.2", "DATA too large", unhexed("004001 00 00 00000001"), "FRAME_SIZE_ERROR"},
	{"4.2", "HEADERS too large", unhexed("004001 01 04 00000001"), "FRAME_SIZE_ERROR"},
	{"4.2", "SETTINGS too large", unhexed("004002 04 00 00000000"), "FRAME_SIZE_ERROR"},
	{"4.2", "unknown type too large", unhexed("ffffff ff 00 00000000"), "FRAME_SIZE_ERROR"},
	{"4.2", "HTTP/1", []byte("HTTP/1.1 400 Bad Request\r\n"), "FRAME_SIZE_ERROR"},

	// DATA.
	{"6.1", "DATA without a stream", data(0, 0, "x"), "PROTOCOL_ERROR"},
	{"6.1", "DATA with its whole payload as padding", unhexed("000004 00 08 00000001 03 000000"), ""},
	{"6.1", "DATA with padding of its size", unhexed("000004 00 08 00000001 04 000000"), "PROTOCOL_ERROR"},
	{"6.1", "DATA with padding larger than it is", unhexed("000004 00 08 00000001 ff 000000"), "PROTOCOL_ERROR"},
	{"6.1", "padded DATA of 0 bytes", unhexed("000000 00 08 00000001"), "FRAME_SIZE_ERROR"},

	// HEADERS.
	{"6.2", "HEADERS without a stream", headers(0, 0, ":status", "200"), "PROTOCOL_ERROR"},
	{"6.2", "HEADERS with padding of its size", unhexed("000002 01 0c 00000001 02 00"), "PROTOCOL_ERROR"},
	{"6.2", "HEADERS with its whole payload as padding", unhexed("000002 01 0c 00000001 01 00"), ""},
	{"6.2", "padded HEADERS of 0 bytes", unhexed("000000 01 0c 00000001"), "FRAME_SIZE_ERROR"},
	{"6.2", "HEADERS too short for priority", unhexed("000004 01 24 00000001 00000003"), "FRAME_SIZE_ERROR"},
	{"6.2", "padded HEADERS too short for priority", unhexed("000005 01 2c 00000001 00 00000003"), "FRAME_SIZE_ERROR"},
	{"6.2", "HEADERS of priority alone", unhexed("000005 01 24 00000001 00000003 00"), ""},
	{"6.2", "HEADERS of padding and priority alone", unhexed("000008 01 2c 00000001 02 00000003 00 0000"), ""},
	{"6.2", "HEADERS with padding that covers priority", unhexed("000008 01 2c 00000001 03 00000003 00 0000"), "PROTOCOL_ERROR"},
	{"5.3.1 of RFC 7540", "HEADERS that depend on their stream", unhexed("000005 01 24 00000003 80000003 00"), "PROTOCOL_ERROR"},

	// PRIORITY.
	{"6.3", "PRIORITY without a stream", unhexed("000005 02 00 00000000 00000003 00"), "PROTOCOL_ERROR"},
	{"6.3", "PRIORITY of 4 bytes", unhexed("000004 02 00 00000007 00000003"), "stream 7 FRAME_SIZE_ERROR"},
	{"6.3", "PRIORITY of 6 bytes", unhexed("000006 02 00 00000007 00000003 0000"), "stream 7 FRAME_SIZE_ERROR"},
	{"6.3", "PRIORITY of 0 bytes", unhexed("000000 02 00 00000007"), "stream 7 FRAME_SIZE_ERROR"},
	{"5.3.1 of RFC 7540", "PRIORITY that depends on its stream", unhexed("000005 02 00 00000007 80000007 00"), "stream 7 PROTOCOL_ERROR"},

	// RST_STREAM.
	{"6.4", "RST_STREAM without a stream", reset(0, 0), "PROTOCOL_ERROR"},
	{"6.4", "RST_STREAM of 3 bytes", frame(h2.TypeRSTStream, 0, 1, "123"), "FRAME_SIZE_ERROR"},
	{"6.4", "RST_STREAM of 5 bytes", frame(h2.TypeRSTStream, 0, 1, "12345"), "FRAME_SIZE_ERROR"},
	{"7", "RST_STREAM with an unknown code", reset(1, 1<<32-1), ""},

	// SETTINGS.
	{"6.5", "SETTINGS of a stream", frame(h2.TypeSettings, 0, 1, ""), "PROTOCOL_ERROR"},
	{"6.5", "SETTINGS of 5 bytes", frame(h2.TypeSettings, 0, 0, "12345"), "FRAME_SIZE_ERROR"},
	{"6.5", "acknowledgement of 6 bytes", frame(h2.TypeSettings, h2.FlagAck, 0, "\x00\x01\x00\x00\x00\x00"), "FRAME_SIZE_ERROR"},
	{"6.5", "acknowledgement of a stream", frame(h2.TypeSettings, h2.FlagAck, 1, ""), "PROTOCOL_ERROR"},
	{"6.5.2", "ENABLE_PUSH 1", setting(h2.SettingEnablePush, 1), ""}, // a client may say so
	{"6.5.2", "ENABLE_PUSH 2", setting(h2.SettingEnablePush, 2), "PROTOCOL_ERROR"},
	{"6.5.2", "INITIAL_WINDOW_SIZE at its most", setting(h2.SettingInitialWindowSize, 1<<31-1), ""},
	{"6.5.2", "INITIAL_WINDOW_SIZE above", setting(h2.SettingInitialWindowSize, 1<<31), "FLOW_CONTROL_ERROR"},
	{"6.5.2", "MAX_FRAME_SIZE below its least", setting(h2.SettingMaxFrameSize, 1<<14-1), "PROTOCOL_ERROR"},
	{"6.5.2", "MAX_FRAME_SIZE at its least", setting(h2.SettingMaxFrameSize, 1<<14), ""},
	{"6.5.2", "MAX_FRAME_SIZE at its most", setting(h2.SettingMaxFrameSize, 1<<24-1), ""},
	{"6.5.2", "MAX_FRAME_SIZE above", setting(h2.SettingMaxFrameSize, 1<<24), "PROTOCOL_ERROR"},
	{"6.5.2", "an unknown setting", setting(0xffff, 1<<32-1), ""},
	{"6.5.2", "a bad value after good ones", settings(h2.SettingValue{3, 1}, h2.SettingValue{2, 0}, h2.SettingValue{2, 9}), "PROTOCOL_ERROR"},
	{"10.5", "as many entries as are taken", settings(make([]h2.SettingValue, h2.MaxSettings)...), ""},
	{"10.5", "too many entries", settings(make([]h2.SettingValue, h2.MaxSettings+1)...), "ENHANCE_YOUR_CALM"},

	// PUSH_PROMISE.
	{"6.6", "PUSH_PROMISE without a stream", frame(h2.TypePushPromise, h2.FlagEndHeaders, 0, "\x00\x00\x00\x02"), "PROTOCOL_ERROR"},

	// PING.
	{"6.7", "PING of a stream", frame(h2.TypePing, 0, 1, "12345678"), "PROTOCOL_ERROR"},
	{"6.7", "PING of 7 bytes", frame(h2.TypePing, 0, 0, "1234567"), "FRAME_SIZE_ERROR"},
	{"6.7", "PING of 9 bytes", frame(h2.TypePing, 0, 0, "123456789"), "FRAME_SIZE_ERROR"},

	// GOAWAY.
	{"6.8", "GOAWAY of a stream", frame(h2.TypeGoAway, 0, 1, "12345678"), "PROTOCOL_ERROR"},
	{"6.8", "GOAWAY of 7 bytes", frame(h2.TypeGoAway, 0, 0, "1234567"), "FRAME_SIZE_ERROR"},

	// WINDOW_UPDATE.
	{"6.9", "WINDOW_UPDATE of 3 bytes", frame(h2.TypeWindowUpdate, 0, 1, "123"), "FRAME_SIZE_ERROR"},
	{"6.9", "WINDOW_UPDATE of 5 bytes", frame(h2.TypeWindowUpdate, 0, 0, "12345"), "FRAME_SIZE_ERROR"},
	{"6.9", "WINDOW_UPDATE by 0 of the connection", windowUpdate(0, 0), "PROTOCOL_ERROR"},
	{"6.9", "WINDOW_UPDATE by 0 of a stream", windowUpdate(9, 0), "stream 9 PROTOCOL_ERROR"},
	{"6.9", "WINDOW_UPDATE by 0 and the reserved bit", windowUpdate(9, 1<<31), "stream 9 PROTOCOL_ERROR"},

	// CONTINUATION.
	{"6.10", "CONTINUATION without HEADERS", frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, ""), "PROTOCOL_ERROR"},
	{"6.10", "CONTINUATION without a stream", frame(h2.TypeContinuation, h2.FlagEndHeaders, 0, ""), "PROTOCOL_ERROR"},
	{"6.10", "CONTINUATION after the end of a block", slices.Concat(answer(1, "200"), frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, "")), "PROTOCOL_ERROR"},
	{"6.10", "CONTINUATION of another stream", slices.Concat(openBlock, frame(h2.TypeContinuation, h2.FlagEndHeaders, 3, "")), "PROTOCOL_ERROR"},
	{"6.10", "DATA in a block", slices.Concat(openBlock, data(1, 0, "x")), "PROTOCOL_ERROR"},
	{"6.10", "HEADERS in a block", slices.Concat(openBlock, answer(1, "200")), "PROTOCOL_ERROR"},
	{"6.10", "PING in a block", slices.Concat(openBlock, ping(1)), "PROTOCOL_ERROR"},
	{"6.10", "SETTINGS in a block", slices.Concat(openBlock, settings()), "PROTOCOL_ERROR"},
	{"5.5", "an unknown type in a block", slices.Concat(openBlock, frame(0xff, 0, 0, "")), "PROTOCOL_ERROR"},
	{"6.10", "a stream error in a block", slices.Concat(openBlock, windowUpdate(1, 0)), "PROTOCOL_ERROR"},
	{"6.10", "PRIORITY of a wrong size in a block", slices.Concat(openBlock, frame(h2.TypePriority, 0, 1, "")), "PROTOCOL_ERROR"},

	// Bounds of this package.
	{"10.5.1", "as many CONTINUATION frames as are taken", continuations(h2.MaxContinuations, ""), ""},
	{"10.5.1", "too many CONTINUATION frames", continuations(h2.MaxContinuations+1, ""), "ENHANCE_YOUR_CALM"},
	{"10.5.1", "a block as large as is taken", continuations(4, strings.Repeat("x", h2.MaxBlock/4)), ""},
	{"10.5.1", "a block too large", slices.Concat(frame(h2.TypeHeaders, 0, 1, "x"), frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, strings.Repeat("x", h2.MaxBlock))), "ENHANCE_YOUR_CALM"},
}

// openBlock is HEADERS without END_HEADERS.
var openBlock = frame(h2.TypeHeaders, 0, 1, "")

// continuations returns a block in n CONTINUATION frames with that payload.
func continuations(n int, payload string) (b []byte) {
	b = slices.Clone(openBlock)
	for i := range n {
		var flags h2.Flags
		if i == n-1 {
			flags = h2.FlagEndHeaders
		}
		b = h2.AppendFrame(b, h2.TypeContinuation, flags, 1, []byte(payload))
	}
	return b
}

func unhexed(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func describeError(err error) string {
	if e, ok := errors.AsType[*h2.StreamError](err); ok {
		return fmt.Sprintf("stream %d %v", e.Stream, e.Code)
	}
	return codeOf(err)
}

func TestReaderRules(t *testing.T) {
	for _, test := range readerRules {
		for _, part := range []int{1, max(1, len(test.b))} {
			_, err := readAll(test.b, part)
			if got := describeError(err); got != test.want {
				t.Errorf("%s (section %s), in parts of %d bytes: got error %q (%v), want %q", test.name, test.section, part, got, err, test.want)
			}
			if err != nil && !strings.HasSuffix(err.Error(), "_ERROR)") && !strings.HasSuffix(err.Error(), "_CALM)") {
				t.Errorf("%s: got error text %q, want the code at its end", test.name, err)
			}
		}
	}
}

// After an error of a single stream a Reader goes on.
func TestReaderGoesOn(t *testing.T) {
	s := newScript()
	s.reads = [][]byte{slices.Concat(windowUpdate(1, 0), frame(h2.TypePriority, 0, 1, ""), ping(1))}
	r := h2.NewReader(s)
	if err := r.Fill(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 4 {
		f, ok, err := r.Next()
		got = append(got, fmt.Sprintf("%v %t %s", f.Type, ok, describeError(err)))
	}
	want := []string{"DATA false stream 1 PROTOCOL_ERROR", "DATA false stream 1 FRAME_SIZE_ERROR", "PING true ", "DATA false "}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFrameNumbers(t *testing.T) {
	goAway := h2.Frame{Type: h2.TypeGoAway, Payload: unhexed("ffffffff 0000000b")}
	if goAway.Uint32() != h2.MaxStream || goAway.Code() != h2.CodeEnhanceYourCalm {
		t.Errorf("GOAWAY: got last stream %d and %v, want %d and %v", goAway.Uint32(), goAway.Code(), h2.MaxStream, h2.CodeEnhanceYourCalm)
	}
	reset := h2.Frame{Type: h2.TypeRSTStream, Payload: unhexed("fffffff8")}
	if got := reset.Code(); got != 0xfffffff8 {
		t.Errorf("RST_STREAM: got code %d, want %d", uint32(got), uint32(0xfffffff8))
	}
	s := h2.Frame{Type: h2.TypeSettings, Payload: unhexed("0003 00000001 0003 00000002 fff0 ffffffff")}
	var got []h2.SettingValue
	add := func(s h2.Setting, value uint32) error {
		got = append(got, h2.SettingValue{s, value})
		if value == 2 {
			return errWrite
		}
		return nil
	}
	if err := s.Settings(add); err != errWrite || !slices.Equal(got, []h2.SettingValue{{3, 1}, {3, 2}}) {
		t.Errorf("Settings with an error at the second one: got %v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	for _, test := range []struct {
		got  fmt.Stringer
		want string
	}{
		{h2.TypeData, "DATA"}, {h2.TypeHeaders, "HEADERS"}, {h2.TypePriority, "PRIORITY"}, {h2.TypeRSTStream, "RST_STREAM"},
		{h2.TypeSettings, "SETTINGS"}, {h2.TypePushPromise, "PUSH_PROMISE"}, {h2.TypePing, "PING"}, {h2.TypeGoAway, "GOAWAY"},
		{h2.TypeWindowUpdate, "WINDOW_UPDATE"}, {h2.TypeContinuation, "CONTINUATION"}, {h2.Type(10), "frame type 10"}, {h2.Type(255), "frame type 255"},
		{h2.CodeNo, "NO_ERROR"}, {h2.CodeProtocol, "PROTOCOL_ERROR"}, {h2.CodeInternal, "INTERNAL_ERROR"}, {h2.CodeFlowControl, "FLOW_CONTROL_ERROR"},
		{h2.CodeSettingsTimeout, "SETTINGS_TIMEOUT"}, {h2.CodeStreamClosed, "STREAM_CLOSED"}, {h2.CodeFrameSize, "FRAME_SIZE_ERROR"},
		{h2.CodeRefusedStream, "REFUSED_STREAM"}, {h2.CodeCancel, "CANCEL"}, {h2.CodeCompression, "COMPRESSION_ERROR"}, {h2.CodeConnect, "CONNECT_ERROR"},
		{h2.CodeEnhanceYourCalm, "ENHANCE_YOUR_CALM"}, {h2.CodeInadequateSecurity, "INADEQUATE_SECURITY"}, {h2.CodeHTTP11Required, "HTTP_1_1_REQUIRED"},
		{h2.Code(14), "error code 14"}, {h2.Code(1<<32 - 1), "error code 4294967295"},
		{h2.Answered, "answered"}, {h2.Unprocessed, "unprocessed"}, {h2.Reset, "reset"}, {h2.Malformed, "malformed"}, {h2.Lost, "lost"},
		{h2.Kind(5), "Kind(5)"}, {h2.Kind(-1), "Kind(-1)"},
	} {
		if got := test.got.String(); got != test.want {
			t.Errorf("%T: got %q, want %q", test.got, got, test.want)
		}
	}
}

// A vector is a file of http2jp/http2-frame-test-case.
type vector struct {
	Description string
	Wire        string
	Error       []h2.Code // the allowed ones
	Frame       *struct {
		Type    h2.Type
		Flags   h2.Flags
		Stream  uint32 `json:"stream_identifier"`
		Payload struct {
			Data     string
			Block    string `json:"header_block_fragment"`
			Promised uint32 `json:"promised_stream_id"`
			Debug    string `json:"additional_debug_data"`
			Opaque   string `json:"opaque_data"`
			Last     uint32 `json:"last_stream_id"`
			Code     h2.Code
			Error    h2.Code `json:"error_code"`
			Settings [][2]uint32
			Window   uint32 `json:"window_size_increment"`
			Depends  uint32 `json:"stream_dependency"`
			Weight   int    // as RFC 7540 counts it: 1 more than the byte
		} `json:"frame_payload"`
	}
}

// payload returns what a Reader has to make of the vector's frame.
func (v *vector) payload(t *testing.T) (payload []byte) {
	p := &v.Frame.Payload
	switch v.Frame.Type {
	case h2.TypeData:
		return []byte(p.Data)
	case h2.TypeHeaders, h2.TypeContinuation:
		return []byte(p.Block)
	case h2.TypePriority:
		return append(h2.AppendWindowUpdate(nil, 0, p.Depends)[9:], byte(p.Weight-1))
	case h2.TypeRSTStream:
		return h2.AppendRSTStream(nil, 0, p.Error)[9:]
	case h2.TypeSettings:
		var s []h2.SettingValue
		for _, v := range p.Settings {
			s = append(s, h2.SettingValue{h2.Setting(v[0]), v[1]})
		}
		return settings(s...)[9:]
	case h2.TypePushPromise: // whose padding a Reader leaves alone
		return unhex(t, v.Wire)[9:]
	case h2.TypePing:
		return []byte(p.Opaque)
	case h2.TypeGoAway:
		return h2.AppendGoAway(nil, p.Last, p.Error, []byte(p.Debug))[9:]
	}
	return h2.AppendWindowUpdate(nil, 0, p.Window)[9:]
}

// TestVectors reads frames that another author wrote. The environment variable
// APNS_VECTORS names a folder whose frames folder is that of
// github.com/http2jp/http2-frame-test-case.
func TestVectors(t *testing.T) {
	dir := os.Getenv("APNS_VECTORS")
	if dir == "" {
		t.Skip("SKIPPED: APNS_VECTORS is not set, so frames of another author are not tested")
	}
	files, err := filepath.Glob(filepath.Join(dir, "frames", "*", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d vectors in %s, %v, want some", len(files), dir, err)
	}
	bad := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := filepath.Base(filepath.Dir(file)) + "/" + filepath.Base(file)
		b := unhex(t, v.Wire)
		if v.Frame == nil {
			bad++
			checkBadVector(t, name, b, v.Error)
			continue
		}
		want := h2.Frame{Type: v.Frame.Type, Flags: v.Frame.Flags, Stream: v.Frame.Stream, Payload: v.payload(t), Size: len(b) - 9}
		if want.Type == h2.TypeContinuation {
			// It follows HEADERS, and the block ends after it.
			b = slices.Concat(frame(h2.TypeHeaders, 0, want.Stream, ""), b, frame(h2.TypeContinuation, h2.FlagEndHeaders, want.Stream, ""))
			want.Type, want.Flags, want.Size = h2.TypeHeaders, h2.FlagEndHeaders, 0
		}
		frames, err := readAll(b, len(b))
		if err != nil || len(frames) != 1 || !sameFrame(frames[0], want) {
			t.Errorf("%s (%s): got %+v, %v\nwant %+v", name, v.Description, frames, err, want)
		}
	}
	t.Logf("%d good frames, %d bad ones", len(files)-bad, bad)
}

// checkBadVector checks that a frame is an error. What a Reader lets pass, because a
// client refuses PUSH_PROMISE altogether, has to be an error of a Conn.
func checkBadVector(t *testing.T, name string, b []byte, allowed []h2.Code) {
	_, err := readAll(b, len(b))
	if err == nil {
		_, err = newClient(t).read(0, b)
	}
	var code h2.Code
	if e, ok := errors.AsType[*h2.ConnError](err); ok {
		code = e.Code
	} else if e, ok := errors.AsType[*h2.StreamError](err); ok {
		code = e.Code
	} else {
		t.Errorf("%s: got %v, want one of the codes %v", name, err, allowed)
		return
	}
	if !slices.Contains(allowed, code) {
		t.Errorf("%s: got %v, want one of the codes %v", name, err, allowed)
	}
}

// A rawReader cuts bytes into frames, without the code under test.
type rawReader struct{ b []byte }

func newRawReader(b []byte) *rawReader { return &rawReader{b} }

// next returns the next frame. It is false if there is no whole one.
func (r *rawReader) next() (f sentFrame, ok bool) {
	if len(r.b) < 9 {
		return f, false
	}
	end := 9 + int(r.b[0])<<16 + int(r.b[1])<<8 + int(r.b[2])
	if len(r.b) < end {
		return f, false
	}
	f = sentFrame{
		kind:    h2.Type(r.b[3]),
		flags:   h2.Flags(r.b[4]),
		stream:  (uint32(r.b[5])<<24 | uint32(r.b[6])<<16 | uint32(r.b[7])<<8 | uint32(r.b[8])) & (1<<31 - 1),
		payload: r.b[9:end],
	}
	r.b = r.b[end:]
	return f, true
}

func (r *rawReader) all() (frames []sentFrame) {
	for f, ok := r.next(); ok; f, ok = r.next() {
		frames = append(frames, f)
	}
	return frames
}
