package page

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/internal/dump"
)

// A summary is a row of the list.
type summary struct {
	Number   int              `json:"number"`
	Time     time.Time        `json:"time"`
	Protocol string           `json:"protocol"` // http2 or binary
	Conn     int              `json:"connection"`
	Token    string           `json:"token"`
	Channel  string           `json:"channel,omitempty"`
	Topic    string           `json:"topic"`
	Type     apns.PushType    `json:"push_type"`
	Priority apns.Priority    `json:"priority"` // 0: the client has sent none
	Outcome  string           `json:"outcome"`
	Reason   string           `json:"reason,omitempty"` // of a rejection
	Then     string           `json:"then,omitempty"`   // what happened to the connection or the stream
	DelayMS  float64          `json:"delay_ms"`
	Text     string           `json:"text"` // the first characters of the alert, or of the payload
	Findings int              `json:"findings"`
	record   *apnstest.Record // for filters
}

// withoutReason is the Reason of a rejection that has none.
const withoutReason = "without a reason"

func summarize(r *apnstest.Record) summary {
	m := r.Message
	s := summary{
		Number: r.Number, Time: r.Time.UTC(), Protocol: "http2", Conn: r.Conn, Token: m.Token, Channel: m.Channel, Topic: m.Topic,
		Type: m.PushType, Priority: m.Priority, Outcome: r.Outcome.String(), DelayMS: float64(r.Delay.Microseconds()) / 1000,
		Text: text(m.Payload), Findings: len(r.Findings), record: r,
	}
	if r.Port == apns.PushPort {
		s.Protocol = "binary"
	}
	err := r.Err
	if f, ok := errors.AsType[apnstest.Fault](err); ok {
		for _, e := range ends {
			if e.end == f.End && f.End != apnstest.EndCloseNotify {
				s.Then = e.name
			}
		}
		err = f.Err
	}
	if r.Outcome != apnstest.Rejected {
		return s
	}
	if e, ok := errors.AsType[*apns.PushError](err); ok && e.Reason != "" {
		s.Reason = string(e.Reason)
	} else if ok && e.Status != 0 && s.Protocol == "binary" {
		s.Reason = e.Status.Error()
	} else if ok {
		s.Reason = withoutReason
	} else if err != nil {
		s.Reason = err.Error()
	}
	return s
}

// maxText is the size of summary.Text in bytes.
const maxText = 120

// text returns the title and the body of the alert in a payload, or the payload if it has none.
func text(payload []byte) string {
	var p struct {
		APS struct {
			Alert json.RawMessage `json:"alert"`
		} `json:"aps"`
	}
	var alert struct {
		Title    string `json:"title"`
		Body     string `json:"body"`
		TitleKey string `json:"title-loc-key"`
		Key      string `json:"loc-key"`
	}
	s := ""
	if json.Unmarshal(payload, &p) == nil && json.Unmarshal(p.APS.Alert, &s) != nil && json.Unmarshal(p.APS.Alert, &alert) == nil {
		var parts []string
		for _, part := range []string{alert.Title, alert.TitleKey, alert.Body, alert.Key} {
			if part != "" {
				parts = append(parts, part)
			}
		}
		s = strings.Join(parts, " · ")
	}
	if s == "" {
		s = string(payload[:min(len(payload), maxText)])
	}
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\ufffd")
}

// A filter selects messages. Empty fields select all.
type filter struct {
	token, topic, pushType, outcome, protocol, text string
	findings                                        bool
}

func newFilter(q url.Values) filter {
	low := func(name string) string { return strings.ToLower(strings.TrimSpace(q.Get(name))) }
	return filter{low("token"), low("topic"), low("push_type"), low("outcome"), low("protocol"), low("text"), q.Get("findings") == "1"}
}

// accepts reports whether a message has what the filter asks for: a part of the token, topic
// or text, and the whole of the others. The outcome can also be a reason.
func (f *filter) accepts(s *summary) bool {
	has := func(value, part string) bool { return part == "" || strings.Contains(strings.ToLower(value), part) }
	is := func(value, whole string) bool { return whole == "" || strings.EqualFold(value, whole) }
	return has(s.Token+" "+s.Channel, f.token) && has(s.Topic, f.topic) && is(string(s.Type), f.pushType) && is(s.Protocol, f.protocol) &&
		(is(s.Outcome, f.outcome) || is(s.Reason, f.outcome)) && (!f.findings || s.Findings > 0) &&
		(f.text == "" || has(s.Token+" "+s.Topic+" "+s.Reason+" "+s.Text, f.text) || has(string(s.record.Message.Payload), f.text))
}

// A detail is a message with everything that is known of it.
type detail struct {
	summary
	ID         uint32     `json:"id,omitempty"` // on the binary protocol
	APNsID     string     `json:"apns_id,omitempty"`
	CollapseID string     `json:"collapse_id,omitempty"`
	Expiry     *time.Time `json:"expiry,omitempty"`
	Header     []field    `json:"header,omitempty"`
	Size       int        `json:"payload_size"`             // in bytes
	Payload    string     `json:"payload"`                  // empty if it is no UTF-8
	Raw        []byte     `json:"payload_base64,omitempty"` // if it is no UTF-8
	Formatted  string     `json:"payload_formatted,omitempty"`
	Findings   []finding  `json:"findings"`
	Bytes      []part     `json:"bytes,omitempty"`
	Curl       string     `json:"curl,omitempty"` // the commands; see commands.go
	Push       string     `json:"push,omitempty"`
}

type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type finding struct {
	Field  string      `json:"field"`
	Rule   string      `json:"rule"`
	Source string      `json:"source"`
	Reason apns.Reason `json:"reason,omitempty"` // empty: Apple accepts the message, and may drop it
}

// A part is a field of a message of the binary protocol.
type part struct {
	At      int    `json:"at"`
	Hex     string `json:"hex"`
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

func (p *Page) detail(r *apnstest.Record) detail {
	m := r.Message
	d := detail{summary: summarize(r), ID: m.ID, APNsID: m.APNsID, CollapseID: m.CollapseID, Size: len(m.Payload), Findings: []finding{}}
	if !m.Expiry.IsZero() {
		at := m.Expiry.UTC()
		d.Expiry = &at
	}
	for _, f := range r.Header {
		if f.Name == "authorization" || f.Name == "cookie" || f.Name == "proxy-authorization" {
			f.Value = "(not kept)"
		}
		d.Header = append(d.Header, field{f.Name, strings.ToValidUTF8(f.Value, "\ufffd")})
	}
	if utf8.Valid(m.Payload) {
		d.Payload = string(m.Payload)
	} else {
		d.Raw = m.Payload
	}
	var formatted bytes.Buffer
	if json.Indent(&formatted, m.Payload, "", "  ") == nil {
		d.Formatted = formatted.String()
	}
	for _, f := range r.Findings {
		d.Findings = append(d.Findings, finding{f.Field, f.Rule, f.Source, f.Reason})
	}
	if r.Encoded != nil {
		for _, f := range dump.Message(r.Encoded) {
			d.Bytes = append(d.Bytes, part{f.At, hex.EncodeToString(f.Bytes), f.Name, f.Meaning})
		}
	}
	d.Curl, d.Push = p.curl(r), p.push(r)
	return d
}
