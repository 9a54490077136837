package apnstest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// The first SETTINGS have the values that are set: RFC 9113, section 6.5.2. The test writes
// -1 for a setting that is not announced.
func TestHTTP2Settings(t *testing.T) {
	type values struct{ table, streams, window, list int }
	for _, test := range []struct {
		limit    int
		settings apnstest.HTTP2Settings
		want     values
		conn     int // the window of the connection
	}{
		{0, apnstest.HTTP2Settings{}, values{-1, 1000, 1 << 20, 16 << 10}, 1 << 30},
		{-1, apnstest.HTTP2Settings{InitialWindow: -1, ConnectionWindow: 65535, MaxHeaderListSize: -1, HeaderTableSize: -1}, values{0, 0, 0, 0}, 65535},
		{7, apnstest.HTTP2Settings{InitialWindow: 1, ConnectionWindow: 65536, MaxHeaderListSize: 200, HeaderTableSize: 5000}, values{5000, 7, 1, 200}, 65536},
		{1, apnstest.HTTP2Settings{InitialWindow: h2.MaxWindow, ConnectionWindow: h2.MaxWindow, MaxHeaderListSize: 16 << 10, HeaderTableSize: 4096}, values{-1, 1, h2.MaxWindow, 16 << 10}, h2.MaxWindow},
	} {
		s := start(t, false, nil, func(s *apnstest.Server) { s.StreamLimit, s.HTTP2 = test.limit, test.settings })
		c := dialRaw(t, s, true)
		c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
		f := c.until(settings)
		got := values{f.value(h2.SettingHeaderTableSize), f.value(h2.SettingMaxConcurrentStreams), f.value(h2.SettingInitialWindowSize), f.value(h2.SettingMaxHeaderListSize)}
		if got != test.want {
			t.Errorf("%+v: got %+v, want %+v", test.settings, got, test.want)
		}
		c.wantWindowUpdates("the window of the connection", 0, test.conn-65535)
	}

	for name, set := range map[string]func(*apnstest.Server){
		"InitialWindow":     func(s *apnstest.Server) { s.HTTP2.InitialWindow = h2.MaxWindow + 1 },
		"ConnectionWindow":  func(s *apnstest.Server) { s.HTTP2.ConnectionWindow = 65534 },
		"MaxHeaderListSize": func(s *apnstest.Server) { s.HTTP2.MaxHeaderListSize = 16<<10 + 1 },
		"HeaderTableSize":   func(s *apnstest.Server) { s.HTTP2.HeaderTableSize = 1 << 30 },
	} {
		func() {
			s := apnstest.NewUnstartedServer(nil)
			defer s.Close()
			defer func() {
				if text, _ := recover().(string); !strings.Contains(text, name) {
					t.Errorf("%s out of range: got the panic %q, want one with the name", name, text)
				}
			}()
			set(s)
			s.Start()
		}()
	}
}

// The response to a header that is too large has status 431: RFC 9113, section 10.5.1.
func TestMaxHeaderListSize(t *testing.T) {
	size := 0
	for i := 0; i < len(good); i += 2 {
		size += len(good[i]) + len(good[i+1]) + 32
	}
	for _, limit := range []int{0, size + 40} {
		called := 0
		s := start(t, false, func(*apns.Message) error { called++; return nil }, func(s *apnstest.Server) { s.HTTP2.MaxHeaderListSize = limit })
		c := dialRaw(t, s, true)
		c.begin()
		if limit == 0 {
			limit = 16 << 10
		}
		fits := strings.Repeat("x", limit-size-33)
		var e hpack.Encoder
		block := e.AppendBegin(nil)
		for i := 0; i < len(good); i += 2 {
			block = e.AppendField(block, good[i], good[i+1], hpack.Index)
		}
		push := func(id uint32, x string) {
			b := hpack.AppendLiteral(slices.Clone(block), "x", x)
			c.write(h2.AppendHeaders(nil, 0, id, b, h2.MinMaxFrameSize))
		}
		push(1, fits)
		c.write(appendData(nil, 1, h2.FlagEndStream, "{}"))
		if f := c.untilStream(1); f.kind != headers || f.status() != "200" {
			t.Errorf("%d bytes: got %+v, want status 200", limit, f)
		}
		push(3, fits+"x")
		if f := c.untilStream(3); f.kind != headers || f.flags&endStream == 0 || f.status() != "431" {
			t.Errorf("%d bytes: got %+v, want status 431 and the end of the stream", limit+1, f)
		}
		c.wantReset("incomplete request", 3, h2.CodeNo)
		c.write(appendData(nil, 3, h2.FlagEndStream, "{}"))
		c.wantNoFrame("DATA after the RST_STREAM")

		c.write(h2.AppendHeaders(nil, h2.FlagEndStream, 5, hpack.AppendLiteral(slices.Clone(block), "x", fits+"x"), h2.MinMaxFrameSize))
		if f := c.untilStream(5); f.kind != headers || f.flags&endStream == 0 || f.status() != "431" {
			t.Errorf("complete request: got %+v, want status 431 and the end of the stream", f)
		}
		c.wantNoFrame("after the complete request")
		if n := len(s.Records()); n != 1 || called != 1 {
			t.Errorf("got %d records, and the handler was called %d times; want 1 each", n, called)
		}
		c.wantAccepted("at last", 7)
	}
}

// A client must make its header table as small as the setting that it acknowledges: RFC
// 9113, section 4.3.1.
func TestHeaderTableSize(t *testing.T) {
	for name, test := range map[string]struct {
		size   int    // the setting
		before uint32 // the client's size before it acknowledges the setting
		after  uint32 // the client's size after that
		good   bool
	}{
		"the default":                        {0, 4096, 4096, true},
		"smaller by the client's choice":     {0, 100, 50, true},
		"larger than the default":            {0, 4096, 5000, false},
		"larger":                             {5000, 4096, 5000, true},
		"larger than that":                   {5000, 4096, 5001, false},
		"none":                               {-1, 4096, 0, true},
		"none, but used":                     {-1, 4096, 4096, false},
		"none, but used, and smaller before": {-1, 100, 100, false},
		"none, and unused before":            {-1, 0, 0, true},
		"smaller":                            {200, 4096, 200, true},
		"smaller, and even smaller":          {200, 300, 31, true},
		"smaller, but not enough":            {200, 300, 201, false},
	} {
		s := start(t, false, nil, func(s *apnstest.Server) { s.HTTP2.HeaderTableSize = test.size })
		c := dialRaw(t, s, true)
		c.write(append([]byte(preface), frames(frame{settings, 0, 0, nil})...))
		push := func(id, last, size uint32) {
			var b []byte
			if size != last {
				b = appendTableSize(b, size)
			}
			b = append(b, encode(good...)...)
			c.write(appendData(h2.AppendHeaders(nil, 0, id, b, h2.MinMaxFrameSize), id, h2.FlagEndStream, "{}"))
		}
		push(1, 4096, test.before)
		if f := c.untilStream(1); f.kind != headers || f.status() != "200" {
			t.Errorf("%s: got %+v, want status 200", name, f)
		}
		c.write(h2.AppendSettingsAck(nil))
		push(3, test.before, test.after)
		if !test.good {
			c.wantGoAway(name, h2.CodeCompression, 1)
			continue
		}
		if f := c.untilStream(3); f.kind != headers || f.status() != "200" {
			t.Errorf("%s: got %+v, want status 200", name, f)
		}
		push(5, test.after, test.after)
		if f := c.untilStream(5); f.kind != headers || f.status() != "200" {
			t.Errorf("%s: got %+v, want status 200", name, f)
		}
	}
}

// appendTableSize appends a dynamic table size update: RFC 7541, section 6.3.
func appendTableSize(b []byte, n uint32) []byte {
	if n < 31 {
		return append(b, 0x20|byte(n))
	}
	b = append(b, 0x3f)
	for n -= 31; n >= 0x80; n >>= 7 {
		b = append(b, 0x80|byte(n))
	}
	return append(b, byte(n))
}

// The server's header table has at most the size that the client allows, and the server
// announces a smaller size: RFC 9113, section 4.3.1.
func TestClientHeaderTableSize(t *testing.T) {
	s := start(t, false, nil, nil)
	c := dialRaw(t, s, true)
	c.begin(setting(byte(h2.SettingHeaderTableSize), 0))
	c.write(appendPush(nil, 1))
	if f := c.untilStream(1); f.payload[0] != 0x20 || f.payload[1] != 0x88 {
		t.Errorf("got the header block % x, want a table size of 0 and the status", f.payload)
	}
	c.wantAccepted("without another table size", 3)
}

// net/http obeys a stream limit of 0, and waits while the window is 0.
func TestChangedSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, true, nil, nil)
		c := connect(t, s, true)
		if resp := (request{}).send(t.Context(), c); resp.String() != "200" {
			t.Fatal(resp)
		}
		for _, limit := range []int{0, 3, 0, 1000} {
			s.SetStreamLimit(limit)
			synctest.Wait()
			if n := c.Available(); n != limit {
				t.Errorf("limit of %d: net/http has %d streams", limit, n)
			}
		}
		s.SetInitialWindow(0)
		synctest.Wait()
		responses := make(chan response, 3)
		for range 3 {
			go func() { responses <- request{body: bytesOfJSON(100)}.send(t.Context(), c) }()
		}
		time.Sleep(time.Minute)
		if n := len(s.Records()); n != 1 || len(responses) > 0 {
			t.Errorf("window of 0: got %d records and %d responses, want 1 and none", n, len(responses))
		}
		s.SetInitialWindow(3)
		for range 3 {
			if resp := <-responses; resp.String() != "200" {
				t.Errorf("window of 3: got %v, want 200", resp)
			}
		}
	})
}
