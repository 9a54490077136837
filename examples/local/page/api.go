package page

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// routes adds the control API, which docs/local.md describes.
func (p *Page) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/events", p.events)
	mux.HandleFunc("GET /api/status", p.getStatus)
	mux.HandleFunc("GET /api/messages", p.getMessages)
	mux.HandleFunc("GET /api/messages/{number}", p.getMessage)
	mux.HandleFunc("GET /api/messages.jsonl", p.download)
	mux.HandleFunc("GET /api/connections", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, p.connections()) })
	mux.HandleFunc("DELETE /api/connections", done(p.Server.CloseClientConnections))
	mux.HandleFunc("POST /api/goaway", p.postGoAway)
	mux.HandleFunc("GET /api/rules", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, p.Rules.All()) })
	mux.HandleFunc("GET /api/devices", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, p.devices()) })
	mux.HandleFunc("GET /api/feedback", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, p.feedback()) })

	mux.HandleFunc("DELETE /api/messages", done(p.clear))
	mux.HandleFunc("POST /api/rules", p.postRule)
	mux.HandleFunc("DELETE /api/rules", done(p.Rules.Clear))
	mux.HandleFunc("DELETE /api/rules/{id}", p.deleteRule)
	mux.HandleFunc("POST /api/devices", p.postDevice)
	mux.HandleFunc("DELETE /api/devices", done(func() { p.Server.ForgetDevices() }))
	mux.HandleFunc("DELETE /api/devices/{token}", func(w http.ResponseWriter, r *http.Request) {
		p.Server.ForgetDevices(r.PathValue("token"))
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /api/feedback", p.postFeedback)
	mux.HandleFunc("DELETE /api/feedback", done(p.Server.ClearFeedback))
	mux.HandleFunc("PUT /api/stream-limit", p.putStreamLimit)
	mux.HandleFunc("POST /api/reset", done(p.reset))
}

// done returns a handler that does something which needs no arguments and cannot fail.
func done(do func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		do()
		w.WriteHeader(http.StatusNoContent)
	}
}

// read reads the body of a request into v. If it cannot, it responds and returns false.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil && d.Decode(new(json.RawMessage)) != io.EOF {
		err = errors.New("something follows the JSON value")
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("the body is invalid, expected JSON as in docs/local.md: %w", err))
		return false
	}
	return true
}

// reset makes the server as it was at its start, but for its connections.
func (p *Page) reset() {
	p.Rules.Clear()
	p.Server.ForgetDevices()
	p.Server.ClearFeedback()
	p.setStreamLimit(0)
	p.clear()
}

func (p *Page) postRule(w http.ResponseWriter, r *http.Request) {
	var rule Rule
	if !read(w, r, &rule) {
		return
	}
	rule, err := p.Rules.Add(rule)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, http.StatusCreated, rule)
}

func (p *Page) deleteRule(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || !p.Rules.Remove(id) {
		writeError(w, http.StatusNotFound, errors.New("the rule is unknown, expected the id of one in GET /api/rules"))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// A device is the JSON form of an apnstest.Device, and of a feedback record.
type device struct {
	Token  string    `json:"token"`
	Topics []string  `json:"topics,omitempty"`
	DeadAt time.Time `json:"dead_at,omitzero"`
}

func (p *Page) devices() []device {
	list := []device{}
	for _, d := range p.Server.Devices() {
		list = append(list, device{d.Token, d.Topics, d.DeadAt})
	}
	return list
}

func (p *Page) feedback() []device {
	list := []device{}
	for _, f := range p.Server.Feedback() {
		list = append(list, device{Token: f.Token, DeadAt: f.DeadAt})
	}
	return list
}

// readDevice reads a device with a valid token. If it cannot, it responds and returns false.
func readDevice(w http.ResponseWriter, r *http.Request, d *device) bool {
	if !read(w, r, d) {
		return false
	}
	record := apns.Feedback{Token: d.Token, DeadAt: d.DeadAt}
	if d.DeadAt.IsZero() {
		record.DeadAt = time.Unix(0, 0) // the token alone is checked
	}
	if _, err := apns.AppendFeedback(nil, record); err != nil || d.Token == "" {
		writeError(w, http.StatusBadRequest, errors.New("token or dead_at is invalid, expected hexadecimal digits, and a time from 1970 to 2106"))
		return false
	}
	return true
}

// maxDevices is how many devices and how many feedback records the API adds at most.
const maxDevices = 100_000

func (p *Page) postDevice(w http.ResponseWriter, r *http.Request) {
	var d device
	if !readDevice(w, r, &d) {
		return
	}
	switch {
	case (len(d.Topics) == 0) == d.DeadAt.IsZero():
		writeError(w, http.StatusBadRequest, errors.New("the device has both topics and dead_at or neither, expected one of them"))
		return
	case len(p.Server.Devices()) >= maxDevices:
		writeError(w, http.StatusBadRequest, fmt.Errorf("there are %d devices, expected fewer: remove some", maxDevices))
		return
	case !d.DeadAt.IsZero():
		p.Server.Unregister(d.Token, d.DeadAt)
	}
	for _, topic := range d.Topics {
		p.Server.Register(topic, d.Token)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Page) postFeedback(w http.ResponseWriter, r *http.Request) {
	var d device
	if !readDevice(w, r, &d) {
		return
	}
	switch {
	case len(d.Topics) > 0 || d.DeadAt.IsZero():
		writeError(w, http.StatusBadRequest, errors.New("the record has topics or no dead_at, expected token and dead_at"))
		return
	case len(p.Server.Feedback()) >= maxDevices:
		writeError(w, http.StatusBadRequest, fmt.Errorf("there are %d feedback records, expected fewer: remove some", maxDevices))
		return
	}
	p.Server.AddFeedback(apns.Feedback{Token: d.Token, DeadAt: d.DeadAt})
	w.WriteHeader(http.StatusNoContent)
}

// maxStreamLimit is the largest stream limit that the API sets.
const maxStreamLimit = 1_000_000

// streamLimit returns how many messages a connection may have in flight over HTTP/2.
func (p *Page) streamLimit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.limit != 0:
		return p.limit
	case p.Server.StreamLimit != 0:
		return max(0, p.Server.StreamLimit)
	}
	return 1000 // the default of apnstest
}

// setStreamLimit sets the limit. Zero means the one that the server had at its start.
func (p *Page) setStreamLimit(n int) {
	p.mu.Lock()
	changed := p.limit != n
	p.limit = n
	p.mu.Unlock()
	if changed {
		p.Server.SetStreamLimit(p.streamLimit())
	}
}

func (p *Page) putStreamLimit(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Limit int `json:"limit"`
	}
	if !read(w, r, &body) {
		return
	}
	if body.Limit < 1 || body.Limit > maxStreamLimit {
		writeError(w, http.StatusBadRequest, fmt.Errorf("limit is %d, expected 1 to %d", body.Limit, maxStreamLimit))
		return
	}
	p.setStreamLimit(body.Limit)
	w.WriteHeader(http.StatusNoContent)
}

// A connection is the JSON form of an apnstest.Connection.
type connection struct {
	Number      int       `json:"number"`
	Service     string    `json:"service"`
	RemoteAddr  string    `json:"remote_addr"`
	Opened      time.Time `json:"opened"`
	TLS         string    `json:"tls"`
	Certificate string    `json:"certificate,omitempty"` // the common name
	KeyID       string    `json:"key_id,omitempty"`
	TeamID      string    `json:"team_id,omitempty"`
	InFlight    int       `json:"in_flight"`
	GoAwaySent  bool      `json:"goaway_sent"`
}

func (p *Page) connections() []connection {
	list := []connection{}
	for _, c := range p.Server.Connections() {
		service := map[int]string{apns.ProviderPort: "HTTP/2", apns.PushPort: "binary", apns.FeedbackPort: "feedback", apnstest.ChannelsPort: "channels"}[c.Port]
		name := ""
		if len(c.TLS.PeerCertificates) > 0 {
			name = c.TLS.PeerCertificates[0].Subject.CommonName
		}
		list = append(list, connection{
			c.Number, service, c.RemoteAddr, c.Opened.UTC(), tls.VersionName(c.TLS.Version), name, c.KeyID, c.TeamID, c.InFlight, c.GoAwaySent,
		})
	}
	return list
}

func (p *Page) postGoAway(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Reason apns.Reason `json:"reason"`
	}
	if !read(w, r, &body) {
		return
	}
	if !reasonFormat.MatchString(string(body.Reason)) {
		writeError(w, http.StatusBadRequest, errors.New("reason is no reason, expected up to 64 letters"))
		return
	}
	p.Server.GoAway(body.Reason)
	w.WriteHeader(http.StatusNoContent)
}

// state is what the page shows beside the messages. Of long lists it has the beginning.
func (p *Page) state() any {
	const most = 200
	connections, rules, devices, feedback := p.connections(), p.Rules.All(), p.devices(), p.feedback()
	return map[string]any{
		"connections": connections[:min(most, len(connections))], "connection_count": len(connections),
		"rules": rules[:min(most, len(rules))], "rule_count": len(rules),
		"devices": devices[:min(most, len(devices))], "device_count": len(devices),
		"feedback": feedback[:min(most, len(feedback))], "feedback_count": len(feedback),
		"stream_limit": p.streamLimit(),
	}
}

func (p *Page) getStatus(w http.ResponseWriter, _ *http.Request) {
	sample := &apnstest.Record{Port: apns.ProviderPort, Message: &apns.Message{
		Token: sampleToken, Topic: apnstest.BundleID, Payload: []byte(`{"aps":{"alert":{"title":"Hello","body":"from curl"}}}`),
	}}
	for _, f := range [][2]string{{"apns-topic", apnstest.BundleID}, {"apns-push-type", "alert"}} {
		sample.Header = append(sample.Header, apnstest.HeaderField{Name: f[0], Value: f[1]})
	}
	names := []string{}
	for _, e := range ends {
		names = append(names, e.name)
	}
	writeJSON(w, 200, map[string]any{
		"start": p.started, "http2": p.Server.HTTP2Addr, "binary": p.Server.PushAddr, "feedback": p.Server.FeedbackAddr,
		"ca": p.Files.CA, "auth_key": p.Files.AuthKey, "key_id": apnstest.KeyID, "team_id": apnstest.TeamID,
		"cert": p.Files.Cert, "key": p.Files.Key, "topic": apnstest.BundleID, "keeps": p.keeps(), "then": names,
		"curl": p.curl(sample), "push": p.push(sample), "counts": p.counts(), "stream_limit": p.streamLimit(),
	})
}

// sampleToken is the device token in the commands that a beginner pastes.
const sampleToken = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"

// maxWait is how long GET /api/messages waits at most.
const maxWait = time.Minute

// getMessages responds with the latest messages that pass the filter. With count and wait it
// first waits until there are so many, or the time is over.
func (p *Page) getMessages(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, count, wait, after := 100, 0, 0, 0
	for _, n := range []struct {
		name string
		v    *int
		most int
	}{{"limit", &limit, 10_000}, {"count", &count, 10_000}, {"wait", &wait, int(maxWait.Seconds())}, {"after", &after, 1 << 50}} {
		if s := q.Get(n.name); s != "" {
			v, err := strconv.Atoi(s)
			if err != nil || v < 0 || v > n.most {
				writeError(w, http.StatusBadRequest, fmt.Errorf("%s is no number or out of range, expected 0 to %d", n.name, n.most))
				return
			}
			*n.v = v
		}
	}
	// The deadline of the whole answer must not end the wait.
	end := time.Now().Add(time.Duration(wait) * time.Second)
	for {
		f := follower{page: p, filter: newFilter(q), seen: after}
		b, _ := f.next(limit)
		if len(b.Messages)+b.Skipped >= count || !time.Now().Before(end) {
			writeJSON(w, 200, b)
			return
		}
		select {
		case <-time.After(tick / 4):
		case <-r.Context().Done():
			return
		}
	}
}

func (p *Page) getMessage(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.PathValue("number"))
	if err == nil && number > p.floor() {
		records := p.Server.RecordsAfter(number - 1)
		if len(records) > 0 && records[0].Number == number {
			writeJSON(w, 200, p.detail(&records[0]))
			return
		}
	}
	writeError(w, http.StatusNotFound, errors.New("the message is unknown, or was dropped or cleared; expected the number of one in GET /api/messages"))
}

// download responds with all messages that pass the filter, one JSON object a line.
func (p *Page) download(w http.ResponseWriter, r *http.Request) {
	f := newFilter(r.URL.Query())
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="messages.jsonl"`)
	out := json.NewEncoder(w)
	for records := range slices.Chunk(p.Server.RecordsAfter(p.floor()), 100) {
		for i := range records {
			if s := summarize(&records[i]); !f.accepts(&s) {
				continue
			}
			d := p.detail(&records[i])
			d.Curl, d.Push, d.Formatted = "", "", "" // they say the same once more
			if out.Encode(d) != nil {
				return
			}
		}
	}
}
