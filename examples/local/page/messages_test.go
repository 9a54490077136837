package page_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

func (f *fixture) messages(query string) batch {
	f.Helper()
	var b batch
	f.must("GET", "/api/messages?"+query, "", &b)
	return b
}

func (b batch) numbers() []int {
	list := []int{}
	for _, m := range b.Messages {
		list = append(list, m.Number)
	}
	return list
}

func TestFilters(t *testing.T) {
	f := newFixture(t, 100)
	f.must("POST", "/api/rules", `{"token":"bb","reason":"BadDeviceToken"}`, nil)
	conn := f.client()
	for _, m := range []*apns.Message{
		{Token: "aa", Payload: []byte(hello), PushType: apns.PushTypeAlert},                                                     // 1
		{Token: "bb", Payload: []byte(hello), PushType: apns.PushTypeAlert},                                                     // 2: rejected
		{Token: "aabb", Topic: "com.example.Other", Payload: []byte(`{"aps":{"alert":"Äpfel"}}`), PushType: apns.PushTypeAlert}, // 3
		{Token: "cc", Payload: []byte(`{"aps":{"content-available":1},"deep":"needle"}`), PushType: apns.PushTypeBackground},    // 4
		{Token: "cc", Payload: []byte(`{"aps":{"alert":"Hi","badge":"3"}}`), PushType: apns.PushTypeAlert},                      // 5: a finding
	} {
		conn.WritePushMsg(t.Context(), m)
	}
	if err := push(t.Context(), f.dial(f.server.PushAddr, f.server.Config()), "dd", hello); err != nil { // 6
		t.Fatal(err)
	}
	if err := f.server.Wait(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string][]int{
		"":                            {1, 2, 3, 4, 5, 6},
		"token=AA":                    {1, 3},
		"topic=other":                 {3},
		"push_type=background":        {4},
		"outcome=rejected":            {2},
		"outcome=baddevicetoken":      {2},
		"outcome=":                    {1, 2, 3, 4, 5, 6},
		"outcome=Unregistered":        {},
		"outcome=invalid+token":       {},
		"outcome=without+a+reason":    {},
		"protocol=binary":             {6},
		"protocol=http2&token=dd":     {},
		"findings=1":                  {5},
		"text=äpfel":                  {3},
		"text=needle":                 {4},
		"text=hello&outcome=accepted": {1, 6},
		"after=4":                     {5, 6},
		"limit=2":                     {5, 6},
		"limit=1&token=aa":            {3},
	} {
		if got := f.messages(query).numbers(); !slices.Equal(got, want) {
			t.Errorf("%q: got messages %v, want %v", query, got, want)
		}
	}
	if b := f.messages("limit=2"); b.Skipped != 4 || b.Total != 6 {
		t.Errorf("got %d skipped of %d, want 4 of 6", b.Skipped, b.Total)
	}
	_, text := f.call("GET", "/api/messages.jsonl?token=aa", "", nil)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 2 {
		t.Fatalf("the download has %d lines, want 2", len(lines))
	}
	var m struct {
		Number  int
		Payload string
	}
	if err := json.Unmarshal([]byte(lines[0]), &m); err != nil || m.Number != 1 || m.Payload != hello {
		t.Errorf("the first line is %s (%v), want message 1", lines[0], err)
	}
}

func TestDetail(t *testing.T) {
	f := newFixture(t, 100)
	conn := f.client()
	const html = `{"aps":{"alert":"<script>alert(1)</script>","badge":"3"}}`
	push(t.Context(), conn, token, html)
	push(t.Context(), conn, token, "no JSON\xff")
	if err := push(t.Context(), f.dial(f.server.PushAddr, f.server.Config()), token, hello); err != nil {
		t.Fatal(err)
	}
	if err := f.server.Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	var d struct {
		Protocol, Outcome, Reason, Payload, Curl, Push string
		Raw                                            []byte `json:"payload_base64"`
		Formatted                                      string `json:"payload_formatted"`
		Header                                         []struct{ Name, Value string }
		Findings                                       []struct{ Field, Rule, Source, Reason string }
		Bytes                                          []struct {
			At                 int
			Hex, Name, Meaning string
		}
	}
	_, raw := f.call("GET", "/api/messages/1", "", &d)
	if strings.Contains(raw, "<script") {
		t.Errorf("the answer has markup: %s", raw)
	}
	if d.Payload != html || d.Formatted == "" || len(d.Findings) != 1 || d.Findings[0].Field != "aps.badge" || d.Findings[0].Source == "" {
		t.Errorf("got %+v, want the payload and a finding about aps.badge", d)
	}
	if i := slices.IndexFunc(d.Header, func(h struct{ Name, Value string }) bool { return h.Name == "authorization" }); i < 0 || d.Header[i].Value != "(not kept)" {
		t.Errorf("got header %v, want an authorization field without its value", d.Header)
	}
	d.Payload, d.Formatted = "", ""
	f.must("GET", "/api/messages/2", "", &d)
	if string(d.Raw) != "no JSON\xff" || d.Payload != "" || d.Formatted != "" || !strings.HasPrefix(d.Curl, "echo bm8gSlNPTv8= | base64 -d | curl ") {
		t.Errorf("got %+v, want the payload in base64", d)
	}
	f.must("GET", "/api/messages/3", "", &d)
	var got []string
	for _, b := range d.Bytes {
		got = append(got, fmt.Sprint(b.At, " ", b.Name))
	}
	want := "0 command, 1 identifier, 5 expiry, 9 device token length, 11 device token, 43 payload length, 45 payload"
	if strings.Join(got, ", ") != want || d.Bytes[4].Hex != token || d.Protocol != "binary" {
		t.Errorf("%s: got bytes %v, want %s", d.Protocol, got, want)
	}
}

// What a client has sent is quoted in the commands: a shell takes it as it is, and runs
// nothing of it.
func TestCommandsAreQuoted(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell to run the commands in")
	}
	f := newFixture(t, 10)
	conn := f.client()
	const nasty = "' \" $(touch pwned) `touch pwned`; touch pwned # \\ \n !! * -x @/etc/passwd é"
	for i, payload := range []string{nasty, "@/etc/passwd", "-x", "tab\there", "escape\x1b[31m", "\xff"} {
		if err := conn.WritePushMsg(t.Context(), &apns.Message{Token: token, CollapseID: "'$(touch pwned)'", Payload: []byte(payload), PushType: apns.PushTypeAlert}); err == nil {
			t.Fatalf("payload %q is accepted", payload)
		}
		var d struct{ Curl, Push string }
		f.must("GET", fmt.Sprint("/api/messages/", len(f.messages("").Messages)), "", &d)
		if strings.ContainsAny(d.Curl+d.Push, "\x1b\t\ufffd") {
			t.Errorf("payload %d: the commands have control characters: %q", i, d.Curl)
		}
		// Functions in place of the programs print the payload.
		for command, function := range map[string]string{
			d.Curl: `curl() { while [ $# -gt 0 ]; do case $1 in --data-raw) printf %s "$2";; --data-binary) cat;; esac; shift; done; }`,
			d.Push: `go() { cat; }`,
		} {
			cmd := exec.CommandContext(t.Context(), sh, "-c", function+"\n"+command)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != payload {
				t.Errorf("%s\nhas the payload %q (%v), want %q", command, out, err, payload)
			}
			if left, _ := filepath.Glob(filepath.Join(cmd.Dir, "*")); len(left) > 0 {
				t.Errorf("%s\nhas made %v", command, left)
			}
		}
	}
}

// The curl command has a provider token, which needs a topic. So it has the topic of a push with
// a certificate whose header had none.
func TestCurlTopic(t *testing.T) {
	f := newFixture(t, 10)
	withCert, withToken := f.dial(f.server.HTTP2Addr, f.server.Config()), f.client()
	const other = "com.example.Other"
	for i, test := range []struct {
		name  string
		conn  *apns.Conn
		m     apns.Message
		sent  bool   // the header has a topic
		topic string // of the command
	}{
		{"certificate, no topic", withCert, apns.Message{}, false, apnstest.BundleID},
		{"certificate, its topic", withCert, apns.Message{Topic: apnstest.BundleID}, true, apnstest.BundleID},
		{"certificate, another topic", withCert, apns.Message{Topic: other}, true, other},
		{"provider token", withToken, apns.Message{Topic: other}, true, other},
		{"broadcast", withToken, apns.Message{Channel: "dHN0LXNyY2gtY2hubA==", PushType: apns.PushTypeLiveActivity, Priority: apns.PriorityImmediate}, false, ""},
	} {
		m := test.m
		m.Payload = []byte(hello)
		if m.Channel == "" {
			m.Token, m.PushType = token, apns.PushTypeAlert
		}
		test.conn.WritePushMsg(t.Context(), &m) // some are rejected
		var d struct {
			Curl   string
			Header []struct{ Name string }
		}
		f.must("GET", fmt.Sprint("/api/messages/", i+1), "", &d)
		sent := slices.ContainsFunc(d.Header, func(h struct{ Name string }) bool { return h.Name == "apns-topic" })
		if sent != test.sent {
			t.Errorf("%s: the header has a topic: %v, want %v", test.name, sent, test.sent)
		}
		want := 1
		if test.topic == "" {
			want = 0
		}
		if strings.Count(d.Curl, "apns-topic") != want || !strings.Contains(d.Curl, test.topic) {
			t.Errorf("%s: got %s, want the topic %q once", test.name, d.Curl, test.topic)
		}
	}
}

// The memory is bounded, and the page says how many messages are not kept.
func TestDropped(t *testing.T) {
	f := newFixture(t, 3)
	conn := f.client()
	for range 5 {
		push(t.Context(), conn, token, hello)
	}
	if b := f.messages(""); b.Total != 5 || b.Dropped != 2 || !slices.Equal(b.numbers(), []int{3, 4, 5}) {
		t.Errorf("got %d in all, %d dropped, %v; want 5, 2, [3 4 5]", b.Total, b.Dropped, b.numbers())
	}
	f.must("DELETE", "/api/messages", "", nil)
	if status, _ := f.call("GET", "/api/messages/5", "", nil); status != 404 {
		t.Errorf("a cleared message has status %d, want 404", status)
	}
	push(t.Context(), conn, token, hello)
	if b := f.messages(""); b.Total != 1 || b.Dropped != 0 || !slices.Equal(b.numbers(), []int{6}) {
		t.Errorf("got %d in all, %d dropped, %v; want 1, 0, [6]", b.Total, b.Dropped, b.numbers())
	}
}

// A test can wait for a message.
func TestWaitForMessages(t *testing.T) {
	f := newFixture(t, 10)
	conn := f.client()
	go func() {
		for _, token := range []string{"aa", "bb", "aa"} {
			push(t.Context(), conn, token, hello)
		}
	}()
	if got := f.messages("token=aa&count=2&wait=20").numbers(); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("got %v, want [1 3]", got)
	}
	if got := f.messages("token=aa&count=3&wait=0").numbers(); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("got %v, want [1 3] without waiting", got)
	}
	if got := f.messages("token=bb&wait=20").numbers(); !slices.Equal(got, []int{2}) {
		t.Errorf("got %v, want [2]", got)
	}
	go push(t.Context(), conn, "cc", hello)
	if got := f.messages("after=3&wait=20").numbers(); !slices.Equal(got, []int{4}) {
		t.Errorf("got %v, want [4]", got)
	}
}

// A wait counts more messages than are kept, and those since the last time that they were
// cleared.
func TestWaitForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10)
		conn := f.client()
		pushes := func(n int) {
			for range n {
				time.Sleep(time.Second)
				push(t.Context(), conn, "dd", hello)
			}
		}
		pushes(3)
		go func() {
			pushes(2)
			f.must("DELETE", "/api/messages", "", nil)
			pushes(35)
		}()
		if b := f.messages("count=35&wait=60&limit=3"); !slices.Equal(b.numbers(), []int{38, 39, 40}) || b.Skipped != 32 || b.Total != 35 {
			t.Errorf("got %v, %d skipped of %d, want [38 39 40], 32 of 35", b.numbers(), b.Skipped, b.Total)
		}
	})
}

// While the API waits, it looks at each message once.
func TestWaitIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10_000)
		conn := f.client()
		for range 1000 {
			push(t.Context(), conn, "aa", hello)
		}
		wait := func(query string) float64 {
			return testing.AllocsPerRun(1, func() { f.messages(query) })
		}
		once, long := wait("token=bb"), wait("token=bb&count=1&wait=60")
		if long > 2*once {
			t.Errorf("a minute has %.0f allocations, want about the %.0f of one look", long, once)
		}
	})
}

// Devices, feedback and the stream limit are those of the server, and reset brings back what
// was at the start.
func TestStateAndReset(t *testing.T) {
	f := newFixture(t, 10)
	conn := f.client()
	f.must("POST", "/api/devices", `{"token":"aa","topics":["com.example.app"]}`, nil)
	f.must("POST", "/api/devices", `{"token":"bb","dead_at":"2026-01-02T03:04:05Z"}`, nil)
	f.must("POST", "/api/feedback", `{"token":"cc","dead_at":"2026-01-02T03:04:05Z"}`, nil)
	f.must("PUT", "/api/stream-limit", `{"limit":7}`, nil)
	f.must("POST", "/api/rules", `{"token":"ee","reason":"PayloadTooLarge"}`, nil)
	for token, want := range map[string]string{"aa": "ok", "bb": "410 Unregistered 2026-01-02T03:04:05Z", "dd": "400 BadDeviceToken", "ee": "400 BadDeviceToken"} {
		if got := outcome(push(t.Context(), conn, token, hello)); got != want {
			t.Errorf("%s: got %s, want %s", token, got, want)
		}
	}
	for path, want := range map[string]string{
		"/api/devices":  `[{"token":"aa","topics":["com.example.app"]},{"token":"bb","dead_at":"2026-01-02T03:04:05Z"}]`,
		"/api/feedback": `[{"token":"bb","dead_at":"2026-01-02T03:04:05Z"},{"token":"cc","dead_at":"2026-01-02T03:04:05Z"}]`,
	} {
		if _, got := f.call("GET", path, "", nil); got != want+"\n" {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	var status struct {
		StreamLimit int `json:"stream_limit"`
	}
	if f.must("GET", "/api/status", "", &status); status.StreamLimit != 7 {
		t.Errorf("got stream limit %d, want 7", status.StreamLimit)
	}
	var conns []struct {
		Service, TLS string
		KeyID        string `json:"key_id"`
	}
	if f.must("GET", "/api/connections", "", &conns); len(conns) != 1 || conns[0].Service != "HTTP/2" || conns[0].TLS != "TLS 1.3" || conns[0].KeyID != "APNSTESTK1" {
		t.Errorf("got connections %v, want one with key APNSTESTK1", conns)
	}
	f.must("POST", "/api/reset", "", nil)
	for _, path := range []string{"/api/devices", "/api/feedback", "/api/rules"} {
		if _, got := f.call("GET", path, "", nil); got != "[]\n" {
			t.Errorf("%s after a reset: got %s, want none", path, got)
		}
	}
	if f.must("GET", "/api/status", "", &status); status.StreamLimit != 1000 {
		t.Errorf("after a reset the stream limit is %d, want 1000", status.StreamLimit)
	}
	if b := f.messages(""); b.Total != 0 || len(b.Messages) != 0 {
		t.Errorf("after a reset there are %d messages, want none", b.Total)
	}
	if got := outcome(push(t.Context(), conn, "dd", hello)); got != "ok" {
		t.Errorf("after a reset got %s, want ok", got)
	}
}

// events returns a function that returns the next event of a name, and its ID.
func (f *fixture) events(query, lastID string) func(name string) (data, id string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	f.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", f.web.URL+"/api/events?"+query, nil)
	if err != nil {
		f.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := (&http.Client{Transport: f.transport}).Do(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 10<<20)
	return func(name string) (data, id string) {
		f.Helper()
		event := ""
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case field == "event":
				event = value
			case field == "id":
				id = value
			case field == "data":
				data = value
			case event == name:
				return data, id
			default:
				id = ""
			}
		}
		f.Fatalf("the events end without %s: %v", name, lines.Err())
		return "", ""
	}
}

// A client that connects again gets what it has missed, once. One that knew another start of
// the program gets everything.
func TestEvents(t *testing.T) {
	f := newFixture(t, 100)
	conn := f.client()
	numbers := func(data string) []int {
		var b batch
		if err := json.Unmarshal([]byte(data), &b); err != nil {
			t.Fatal(err)
		}
		return b.numbers()
	}
	push(t.Context(), conn, "aa", hello)
	next := f.events("", "")
	data, _ := next("messages")
	if got := numbers(data); !slices.Equal(got, []int{1}) {
		t.Errorf("got %v, want [1]", got)
	}
	push(t.Context(), conn, "bb", hello)
	data, id := next("messages")
	if got := numbers(data); !slices.Equal(got, []int{2}) {
		t.Errorf("got %v, want [2]", got)
	}
	push(t.Context(), conn, "aa", hello)
	for lastID, want := range map[string][]int{id: {3}, "": {1, 2, 3}, "other:2:0": {1, 2, 3}, "nonsense": {1, 2, 3}} {
		next := f.events("", lastID)
		if data, _ := next("start"); strings.Contains(data, `"resumed":true`) != (lastID == id) {
			t.Errorf("after event %q got %s", lastID, data)
		}
		if data, _ := next("messages"); !slices.Equal(numbers(data), want) {
			t.Errorf("after event %q got %v, want %v", lastID, numbers(data), want)
		}
	}
	if data, _ := f.events("token=aa", "")("messages"); !slices.Equal(numbers(data), []int{1, 3}) {
		t.Errorf("with a filter got %v, want [1 3]", numbers(data))
	}
	_, id = next("messages") // 3
	f.must("DELETE", "/api/messages", "", nil)
	next("cleared")
	if data, _ := next("messages"); len(numbers(data)) != 0 {
		t.Errorf("after clearing got %v, want none", numbers(data))
	}
	// A client that was not connected meanwhile learns of it.
	push(t.Context(), conn, "cc", hello)
	late := f.events("", id)
	if data, _ := late("start"); !strings.Contains(data, `"resumed":true`) {
		t.Errorf("after event %q got %s, want it resumed", id, data)
	}
	late("cleared")
	if data, _ := late("messages"); !slices.Equal(numbers(data), []int{4}) {
		t.Errorf("after event %q got %v, want [4]", id, numbers(data))
	}
	f.must("POST", "/api/rules", `{"reason":"BadTopic"}`, nil)
	for { // the state is looked at twice a second
		if data, _ := next("state"); strings.Contains(data, `"reason":"BadTopic"`) {
			return
		}
	}
}

// The API ends connections, also those that have nothing to do.
func TestEndConnections(t *testing.T) {
	f := newFixture(t, 10)
	for _, end := range []struct{ method, path, body string }{
		{"POST", "/api/goaway", `{"reason":"Shutdown"}`},
		{"POST", "/api/goaway", `{}`},
		{"POST", "/api/goaway", ""},
		{"DELETE", "/api/connections", ""},
	} {
		client := &apns.Client{Config: f.server.TokenConfig()}
		if err := client.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(f.server.Connections()); n != 1 {
			t.Fatalf("before %s: there are %d connections, want 1", end.path, n)
		}
		f.must(end.method, end.path, end.body, nil)
		for began := time.Now(); len(f.server.Connections()) > 0; { // a client closes its end after a GOAWAY
			if time.Since(began) > 20*time.Second {
				t.Fatalf("after %s the connection is open", end.path)
			}
			time.Sleep(time.Millisecond)
		}
		client.Close()
	}
}
