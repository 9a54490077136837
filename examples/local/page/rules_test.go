package page_test

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
)

// The answer comes as late as the rule says, and the record has it. What the binary protocol
// accepts has no answer.
func TestRuleDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10)
		for _, test := range []struct {
			rule, outcome string
			binary        bool
			want          time.Duration
		}{
			{`{"delay_ms":30000}`, "ok", false, 30 * time.Second},
			{`{"delay_ms":1,"reason":"BadDeviceToken"}`, "400 BadDeviceToken", false, time.Millisecond},
			{`{"delay_ms":500,"status":503,"then":"goaway"}`, "in doubt, 503", false, 500 * time.Millisecond},
			{`{"delay_ms":30000,"reason":"BadDeviceToken"}`, "invalid token", true, 30 * time.Second},
			{`{"delay_ms":30000}`, "ok", true, 0},
			{`{}`, "ok", false, 0},
		} {
			f.must("POST", "/api/reset", "", nil)
			f.must("POST", "/api/rules", test.rule, nil)
			conn := f.client()
			if test.binary {
				conn = f.dial(f.server.PushAddr, f.server.Config())
			}
			began := time.Now()
			err := push(t.Context(), conn, token, hello)
			if test.binary && err == nil {
				err = conn.Shutdown(t.Context()) // waits for what the server still says
			}
			if got := outcome(err); got != test.outcome {
				t.Errorf("%s: got %s, want %s", test.rule, got, test.outcome)
			}
			if got := time.Since(began); got != test.want {
				t.Errorf("%s, binary %v: the answer came after %v, want %v", test.rule, test.binary, got, test.want)
			}
			records := f.server.Records()
			if got := records[len(records)-1].Delay; got != test.want {
				t.Errorf("%s, binary %v: the record has a delay of %v, want %v", test.rule, test.binary, got, test.want)
			}
			conn.Close()
		}
	})
}

var goAwayInLog = regexp.MustCompile(`msg="apns: GOAWAY" .*?reason=(\S*)`)

// A client gets the GOAWAY that a rule or the API sends, and the reason in it.
func TestGoAwayReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10)
		for _, test := range []struct{ path, body, want string }{
			{"/api/rules", `{"then":"goaway","goaway_reason":"Shutdown"}`, "Shutdown"},
			{"/api/rules", `{"then":"goaway"}`, `""`},
			{"/api/rules", `{"then":"goaway","reason":"BadDeviceToken","goaway_reason":"IdleTimeout"}`, "IdleTimeout"},
			{"/api/rules", `{"then":"goaway-unprocessed","goaway_reason":"BadCertificate"}`, "BadCertificate"},
			{"/api/rules", `{"then":"goaway-unprocessed"}`, `""`},
			{"/api/rules", `{}`, ""},
			{"/api/goaway", `{"reason":"Shutdown"}`, "Shutdown"},
			{"/api/goaway", `{}`, `""`},
		} {
			f.must("POST", "/api/reset", "", nil)
			var log bytes.Buffer
			config := f.server.TokenConfig()
			config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			conn := f.dial(f.server.HTTP2Addr, config)
			f.must("POST", test.path, test.body, nil)
			if test.path == "/api/rules" {
				push(t.Context(), conn, token, hello) // TestRules has what becomes of it
			}
			synctest.Wait()
			var reasons []string
			for _, line := range goAwayInLog.FindAllStringSubmatch(log.String(), -1) {
				reasons = append(reasons, line[1])
			}
			if got := strings.Join(reasons, ", "); got != test.want {
				t.Errorf("%s %s: the client got GOAWAYs with the reasons %s, want %s", test.path, test.body, got, test.want)
			}
			conn.Close()
		}
	})
}

// A client has as many messages in flight as the stream limit allows, on a connection that is
// open when it is set and on a later one. A reset brings back the limit of the start.
func TestStreamLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 100)
		connect := func() *apns.Conn {
			f.must("DELETE", "/api/rules", "", nil)
			conn := f.client()
			// A connection with provider tokens has one message in flight until one is accepted.
			if err := push(t.Context(), conn, token, hello); err != nil {
				t.Fatal(err)
			}
			return conn
		}
		inFlight := func(when string, conn *apns.Conn, want int) {
			t.Helper()
			f.must("POST", "/api/rules", `{"delay_ms":1000}`, nil)
			ctx, cancel := context.WithCancel(t.Context())
			for range 20 {
				go push(ctx, conn, token, hello)
			}
			synctest.Wait()
			for _, c := range f.server.Connections() {
				if c.InFlight != want {
					t.Errorf("%s: %d messages are in flight, want %d", when, c.InFlight, want)
				}
			}
			cancel()
			conn.Close()
			synctest.Wait()
		}
		conn := connect()
		f.must("PUT", "/api/stream-limit", `{"limit":7}`, nil)
		synctest.Wait() // the client has got it
		inFlight("an open connection", conn, 7)
		inFlight("a new connection", connect(), 7)
		conn = connect()
		f.must("POST", "/api/reset", "", nil)
		synctest.Wait()
		inFlight("after a reset", conn, 20)
	})
}
