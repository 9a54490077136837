package h2_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// DATA never exceeds the windows, and goes on when they grow (RFC 9113, sections
// 6.9.1 and 6.9.2). The steps are what the server sends, and what the client sends
// after that. The client has the request a with a body of 10 bytes on stream 1.
func TestWindows(t *testing.T) {
	initial := func(n uint32) []byte { return setting(h2.SettingInitialWindowSize, n) }
	type step struct {
		server []byte
		sent   string
	}
	for _, test := range []struct {
		name    string
		initial uint32 // INITIAL_WINDOW_SIZE when the request is opened
		opened  string
		steps   []step
	}{
		{"as large as the body", 10, "HEADERS 1; DATA 1 10 END_STREAM", nil},
		{"smaller by one", 9, "HEADERS 1; DATA 1 9", []step{{windowUpdate(1, 1), "DATA 1 1 END_STREAM"}}},
		{"0", 0, "HEADERS 1", []step{
			{windowUpdate(1, 3), "DATA 1 3"},
			{windowUpdate(0, 3), ""}, // the connection has enough
			{windowUpdate(1, 6), "DATA 1 6"},
			{windowUpdate(1, 1<<31-1), "DATA 1 1 END_STREAM"},
			{windowUpdate(1, 1<<31-1), "RST_STREAM 1 FLOW_CONTROL_ERROR; PING 1"}, // 1 too many
		}},
		{"by single bytes", 7, "HEADERS 1; DATA 1 7", []step{
			{windowUpdate(1, 1), "DATA 1 1"}, {windowUpdate(1, 1), "DATA 1 1"}, {windowUpdate(1, 1), "DATA 1 1 END_STREAM"}, {windowUpdate(1, 1), ""},
		}},
		{"several updates together", 0, "HEADERS 1", []step{{slices.Concat(windowUpdate(1, 1), windowUpdate(1, 2), windowUpdate(1, 3)), "DATA 1 6"}}},
		{"raised by SETTINGS", 0, "HEADERS 1", []step{{initial(4), "SETTINGS ACK; DATA 1 4"}, {initial(10), "SETTINGS ACK; DATA 1 6 END_STREAM"}}},
		{"negative", 6, "HEADERS 1; DATA 1 6", []step{
			{initial(2), "SETTINGS ACK"}, // -4
			{windowUpdate(1, 4), ""},     // 0
			{windowUpdate(1, 1), "DATA 1 1"},
			{initial(0), "SETTINGS ACK"}, // -2
			{initial(3), "SETTINGS ACK; DATA 1 1"},
			{windowUpdate(1, 9), "DATA 1 2 END_STREAM"},
		}},
		{"lowered and raised before a flush", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(initial(0), initial(6)), "SETTINGS ACK; SETTINGS ACK; DATA 1 2"}}},
		{"raised and lowered before a flush", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(initial(9), initial(4)), "SETTINGS ACK; SETTINGS ACK"}}},
		{"twice in one SETTINGS", 0, "HEADERS 1", []step{{settings(h2.SettingValue{4, 9}, h2.SettingValue{4, 1}), "SETTINGS ACK; DATA 1 1"}}},
		{"an early answer", 4, "HEADERS 1; DATA 1 4", []step{
			{slices.Concat(windowUpdate(1, 1), answer(1, "413")), "RST_STREAM 1 CANCEL"},
			{windowUpdate(1, 9), ""},
		}},
		{"an early status", 4, "HEADERS 1; DATA 1 4", []step{
			{begin(1, "413"), ""},
			{windowUpdate(1, 1), "DATA 1 1"}, // it may want the rest
			{data(1, h2.FlagEndStream, "x"), "RST_STREAM 1 CANCEL"},
		}},
		{"RST_STREAM", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(windowUpdate(1, 5), reset(1, h2.CodeCancel)), ""}, {windowUpdate(1, 9), ""}}},
		{"a malformed answer", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(windowUpdate(1, 5), answer(1, "20")), "RST_STREAM 1 PROTOCOL_ERROR; PING 1"}, {windowUpdate(1, 9), ""}}},
		{"GOAWAY above", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(windowUpdate(1, 5), goAway(1)), "DATA 1 5"}, {windowUpdate(1, 9), "DATA 1 1 END_STREAM"}}},
		{"GOAWAY below", 4, "HEADERS 1; DATA 1 4", []step{{slices.Concat(windowUpdate(1, 5), goAway(0)), ""}, {windowUpdate(1, 9), ""}}},
	} {
		c := newClient(t)
		c.receive(initial(test.initial))
		c.flush()
		c.sent()
		c.openBody("a", "1234567890")
		if got := c.flushed(); got != test.opened {
			t.Errorf("%s: the client sent %q, want %q", test.name, got, test.opened)
		}
		for i, step := range test.steps {
			c.receive(step.server)
			if got, want := c.Pending(), step.sent != ""; got != want && !(got && step.sent == "") {
				t.Errorf("%s, step %d: got Pending %t, want %t", test.name, i, got, want)
			}
			if got := c.flushed(); got != step.sent {
				t.Errorf("%s, step %d: the client sent %q, want %q", test.name, i, got, step.sent)
			}
			if c.Pending() {
				t.Errorf("%s, step %d: got Pending true after Flush, want false", test.name, i)
			}
		}
	}
}

// The connection's window is that of all streams, is not changed by SETTINGS
// (section 6.9.2), and without it nothing is opened.
func TestConnectionWindow(t *testing.T) {
	c := newClient(t, h2.SettingValue{h2.SettingInitialWindowSize, 1 << 20})
	c.openBody("a", strings.Repeat("a", 65_000))
	c.openBody("b", strings.Repeat("b", 1000))
	if c.Room() != 0 {
		t.Errorf("without a window: got room %d, want 0", c.Room())
	}
	if got, want := c.flushed(), "HEADERS 1; DATA 1 16384; DATA 1 16384; DATA 1 16384; DATA 1 15848 END_STREAM; HEADERS 3; DATA 3 535"; got != want {
		t.Errorf("the client sent\n%s, want\n%s", got, want)
	}
	c.receive(setting(h2.SettingInitialWindowSize, 1<<21), windowUpdate(3, 5000))
	if got := c.flushed(); got != "SETTINGS ACK" || c.Room() != 0 {
		t.Errorf("windows of streams: the client sent %q, room %d, want an acknowledgement alone, 0", got, c.Room())
	}
	c.receive(windowUpdate(0, 465))
	if got := c.flushed(); got != "DATA 3 465 END_STREAM" || c.Room() != 0 {
		t.Errorf("a window as large as what is left: the client sent %q, room %d, want that, and 0", got, c.Room())
	}
	c.receive(windowUpdate(0, 1))
	if c.Room() != h2.DefaultStreams-2 {
		t.Errorf("with a window: got room %d, want %d", c.Room(), h2.DefaultStreams-2)
	}
	c.open("c")
	c.receive(windowUpdate(0, 1<<31-1))
	if got := c.flushed(); got != "HEADERS 5; DATA 5 1; DATA 5 1 END_STREAM" {
		t.Errorf("the largest window: the client sent %q", got)
	}
}

// What is held back goes on in the order in which it was opened, and what has its
// outcome does not.
func TestHeldBackTogether(t *testing.T) {
	c := newClient(t, h2.SettingValue{h2.SettingInitialWindowSize, 0})
	for i := range 6 {
		c.openBody(fmt.Sprint(i), "12345")
	}
	c.flush()
	c.sent()
	c.cancel(3)
	c.receive(reset(5, h2.CodeRefusedStream), answer(7, "413"), windowUpdate(9, 2), setting(h2.SettingInitialWindowSize, 3), windowUpdate(11, 9))
	if got, want := c.flushed(), "RST_STREAM 3 CANCEL; PING 1; RST_STREAM 7 CANCEL; SETTINGS ACK; DATA 1 3; DATA 9 5 END_STREAM; DATA 11 5 END_STREAM"; got != want {
		t.Errorf("the client sent\n%s, want\n%s", got, want)
	}
	c.receive(windowUpdate(1, 2))
	if got, want := c.flushed(), "DATA 1 2 END_STREAM"; got != want {
		t.Errorf("the client sent %q, want %q", got, want)
	}
	if got, want := c.end(io.EOF), "0 lost; 4 lost; 5 lost"; got != want {
		t.Errorf("at the end: got %q, want %q", got, want)
	}
}

// DATA counts against the connection's window with its padding, also that of
// streams which have ended, and is allowed anew (sections 5.1, 6.1 and 6.9).
func TestReceivedData(t *testing.T) {
	c := newClient(t)
	full := strings.Repeat("x", 16384)
	padded := frame(h2.TypeData, h2.FlagPadded, 3, "\xff"+full[1:])
	c.open("answered", "padded", "cancelled", "reset")
	c.flush()
	c.sent()
	c.receive(answer(1, "200"), begin(3, "200"), begin(5, "200"), reset(7, h2.CodeCancel))
	c.cancel(5)
	c.flush()
	c.sent()
	for i, b := range [][]byte{data(1, 0, full), padded, data(5, 0, full), data(7, 0, full)} {
		want := ""
		for n := range 3 {
			c.receive(b)
			if got := c.flushed(); got != want {
				t.Errorf("frame %d of stream %d: the client sent %q, want %q", n, 2*i+1, got, want)
			}
		}
	}
	// 12 of 32 frames have come; the windows of streams are not given back.
	for range 19 {
		c.receive(data(1, 0, full))
	}
	if c.Pending() {
		t.Error("before half of the window: got Pending true, want false")
	}
	c.receive(data(1, 0, full))
	if !c.Pending() {
		t.Error("after half of the window: got Pending false, want true")
	}
	if got, want := c.flushed(), "WINDOW_UPDATE 524288"; got != want {
		t.Errorf("after half of the window: the client sent %q, want %q", got, want)
	}
	// Without Flush nothing is allowed anew.
	for i := range 64 {
		if _, err := c.read(0, data(1, 0, full)); err != nil {
			t.Fatalf("frame %d of the window: got %v, want nil", i, err)
		}
	}
	if _, err := c.read(0, data(1, 0, "x")); codeOf(err) != "FLOW_CONTROL_ERROR" {
		t.Errorf("more than the window: got %v, want a FLOW_CONTROL_ERROR", err)
	}
}
