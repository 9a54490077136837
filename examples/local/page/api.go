package page

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// routes adds the control API, which docs/local.md describes.
func (p *Page) routes(mux *http.ServeMux) {
	handle := func(pattern string, h http.HandlerFunc, parameters ...string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := p.checkQuery(r, parameters); err != nil {
				writeError(w, http.StatusBadRequest, err)
				return
			}
			h(w, r)
		})
	}
	handle("GET /api/events", p.events, filterNames...)
	handle("GET /api/status", p.getStatus)
	handle("GET /api/messages", p.getMessages, slices.Concat(filterNames, []string{"limit", "after", "count", "wait"})...)
	handle("GET /api/messages/{number}", p.getMessage)
	handle("GET /api/messages.jsonl", p.download, filterNames...)
	handle("GET /api/connections", get(p.connections))
	handle("GET /api/rules", get(p.Rules.All))
	handle("GET /api/devices", get(p.devices))
	handle("GET /api/feedback", get(p.feedback))

	handle("DELETE /api/messages", done(p.clear))
	handle("DELETE /api/connections", done(p.Server.CloseClientConnections))
	handle("POST /api/goaway", p.postGoAway)
	handle("POST /api/rules", p.postRule)
	handle("DELETE /api/rules", done(p.Rules.Clear))
	handle("DELETE /api/rules/{id}", p.deleteRule)
	handle("POST /api/devices", p.postDevice)
	handle("DELETE /api/devices", done(p.forgetDevices))
	handle("DELETE /api/devices/{token}", p.deleteDevice)
	handle("POST /api/feedback", p.postFeedback)
	handle("DELETE /api/feedback", done(func() { p.clearFeedback() }))
	handle("PUT /api/stream-limit", p.putStreamLimit)
	handle("POST /api/reset", done(p.reset))
}

// get returns a handler that responds with a list.
func get[T any](list func() []T) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, list()) }
}

// done returns a handler that does something which needs no arguments and cannot fail.
func done(do func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !readNothing(w, r) {
			return
		}
		do()
		w.WriteHeader(http.StatusNoContent)
	}
}

// reset makes the server as it was at its start, but for its connections.
func (p *Page) reset() {
	p.Rules.Clear()
	p.forgetDevices()
	p.clearFeedback(p.atStart...)
	p.setStreamLimit(0)
	p.clear()
}

func (p *Page) postRule(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Rule
		ID     *int            `json:"id"`
		Times  json.RawMessage `json:"times"`
		DeadAt deadAt          `json:"dead_at"`
	}
	if !read(w, r, &body) {
		return
	}
	rule, err := body.Rule, error(nil)
	rule.DeadAt = body.DeadAt.Time
	// A test may compute times, and get 0 or null by mistake: neither means all messages.
	switch {
	case body.ID != nil:
		err = fmt.Errorf("id is %d, expected none: the response has it", *body.ID)
	case body.Times != nil && (json.Unmarshal(body.Times, &rule.Times) != nil || rule.Times < 1):
		err = fmt.Errorf("times is %.20s, expected a number from 1, or no times for all messages", body.Times)
	default:
		rule, err = p.Rules.Add(rule)
	}
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

// maxStreamLimit is the largest stream limit that the API sets.
const maxStreamLimit = 1_000_000

// streamLimit returns how many messages a connection may have in flight over HTTP/2.
func (p *Page) streamLimit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit != 0 {
		return p.limit
	}
	return p.Server.StreamLimit
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
	if r.ContentLength != 0 && !read(w, r, &body) {
		return
	}
	if !reasonFormat.MatchString(string(body.Reason)) {
		writeError(w, http.StatusBadRequest, fmt.Errorf("reason is %.70q, expected up to 64 letters", string(body.Reason)))
		return
	}
	p.Server.GoAway(body.Reason)
	w.WriteHeader(http.StatusNoContent)
}

// A snapshot is the state of the server in JSON. All open pages share it.
type snapshot struct {
	mu      sync.Mutex // protects following
	at      time.Time
	json    []byte
	devices []device // the first ones
	count   int      // of all devices
	changes int      // additions.changes when the devices were looked at
}

const (
	stateAge    = 500 * time.Millisecond // how old a snapshot becomes
	stateLength = 200                    // how much of a list it has: the beginning
	stateTopics = 5                      // how many topics of a device
)

// state is what the page shows beside the messages.
func (p *Page) state() []byte {
	s := &p.snapshot
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.json != nil && time.Since(s.at) < stateAge {
		return s.json
	}
	p.lookAtDevicesLocked()
	connections, rules, feedback := p.connections(), p.Rules.All(), p.feedback()
	b, err := json.Marshal(map[string]any{
		"connections": connections[:min(stateLength, len(connections))], "connection_count": len(connections),
		"rules": rules[:min(stateLength, len(rules))], "rule_count": len(rules),
		"devices": s.devices, "device_count": s.count,
		"feedback": feedback[:min(stateLength, len(feedback))], "feedback_count": len(feedback),
		"stream_limit": p.streamLimit(),
	})
	if err == nil {
		s.json = b
	}
	s.at = time.Now()
	return s.json
}

// lookAtDevicesLocked updates the devices of the snapshot if they have changed. It takes long
// if there are many. The caller holds snapshot.mu.
func (p *Page) lookAtDevicesLocked() {
	s := &p.snapshot
	p.mu.Lock()
	changes := p.added.changes
	p.mu.Unlock()
	if s.devices != nil && changes == s.changes {
		return
	}
	all := p.devices()
	s.changes, s.count, s.devices = changes, len(all), slices.Clone(all[:min(stateLength, len(all))])
	for i := range s.devices {
		if topics := s.devices[i].Topics; len(topics) > stateTopics {
			s.devices[i].Topics = append(topics[:stateTopics:stateTopics], fmt.Sprintf("and %d more", len(topics)-stateTopics))
		}
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
	writeJSON(w, http.StatusOK, map[string]any{
		"start": p.started, "http2": Reachable(p.Server.HTTP2Addr), "binary": Reachable(p.Server.PushAddr), "feedback": Reachable(p.Server.FeedbackAddr),
		"ca": p.Files.CA, "auth_key": p.Files.AuthKey, "key_id": apnstest.KeyID, "team_id": apnstest.TeamID,
		"cert": p.Files.Cert, "key": p.Files.Key, "topic": apnstest.BundleID, "keeps": p.Server.MaxRecords, "then": names, "reasons": reasons,
		"curl": p.curl(sample), "push": p.push(sample), "counts": p.counts(), "stream_limit": p.streamLimit(),
	})
}

// sampleToken is the device token in the commands that a beginner pastes.
const sampleToken = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
