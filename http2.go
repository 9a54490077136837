package apns

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
	"example.com/apns/internal/secret"
)

// A Receipt is what the HTTP/2 provider API says of a message that it accepted.
type Receipt struct {
	// APNsID is the server's name for the message: Message.APNsID, or one that
	// the server made up. For a broadcast it is the apns-request-id of the answer.
	APNsID string
	// UniqueID is the message's name in the Push Notifications Console. Only
	// the sandbox gives one. (For a broadcast production may give one, too.)
	UniqueID string
}

// A provider is the HTTP/2 provider API: it knows which request a message becomes,
// and what an answer means. The sources are "Sending notification requests to APNs"
// and "Handling notification responses from APNs".
type provider struct {
	host   string       // as in the request
	topics topics       // of messages that have none
	tokens *tokenSource // nil if a certificate identifies the sender

	anonymous bool // neither a key nor a certificate is configured

	// Protected by dispatcher.mu, and reused for each request:
	out     h2.Request
	bearer  string // the provider token in out.Literals
	token   uint32 // the number of the current provider token
	renewed bool   // it was changed, and that was not logged yet
}

// newProvider returns the provider API of a server. The address is as Dial takes it.
func newProvider(addr, bundleID string, tokens *tokenSource) *provider {
	return &provider{host: strings.TrimSuffix(addr, ":443"), topics: newTopics(bundleID), tokens: tokens}
}

// suffixedTypes are the push types whose topics have a suffix.
var suffixedTypes = [...]PushType{
	PushTypeLocation, PushTypeVoIP, PushTypeComplication, PushTypeFileProvider,
	PushTypeLiveActivity, PushTypePushToTalk, PushTypeWidgets, PushTypeControls,
}

// A topics has the topics of an app. It saves joining bundle ID and suffix for each message.
type topics struct {
	bundleID string
	suffixed map[PushType]string
}

func newTopics(bundleID string) topics {
	t := topics{bundleID, make(map[PushType]string)}
	if bundleID == "" {
		return t
	}
	for _, pushType := range suffixedTypes {
		t.suffixed[pushType] = pushType.Topic(bundleID)
	}
	return t
}

// of returns PushType.Topic of the bundle ID, or nothing if there is none.
func (t *topics) of(pushType PushType) string {
	if pushType == PushTypeAlert {
		return t.bundleID
	}
	if topic, ok := t.suffixed[pushType]; ok {
		return topic
	}
	return t.bundleID
}

// maxHTTP2TokenSize is the size in bytes of the longest device token that is sent over HTTP/2.
// Apple states no limit. This one leaves a request below the header limits of servers in
// common use, since a server may end the connection for a larger one.
const maxHTTP2TokenSize = 2048

// check says which rule a message breaks, or returns nil.
func (p *provider) check(m *Message) error {
	limit := MaxPayload
	switch {
	case m.Channel != "":
		if err := p.checkBroadcast(m); err != nil {
			return err
		}
		limit = MaxVoIPPayload
	case badTokenSize(m.Token, maxHTTP2TokenSize) || !isHexadecimal(m.Token):
		return tokenError(m.Token, maxHTTP2TokenSize)
	case m.PushType == PushTypeVoIP:
		limit = MaxVoIPPayload
	}
	if badPayloadSize(m.Payload, limit) {
		return payloadSizeError(m.Payload, limit)
	}
	topic, pushType, priority := p.defaults(m)
	switch {
	case topic == "" && p.tokens != nil && m.Channel == "":
		return &fieldError{ReasonMissingTopic, "topic is empty, and so is Config.BundleID, expected one of them: a key, unlike a certificate, is not for one app"}
	case !isHeaderValue(topic):
		return &fieldError{ReasonBadTopic, fmt.Sprintf("topic is %q, expected printable ASCII", topic)}
	case !isHeaderValue(string(pushType)):
		return &fieldError{ReasonInvalidPushType, fmt.Sprintf("push type is %q, expected printable ASCII", pushType)}
	case len(m.CollapseID) > 64:
		return &fieldError{ReasonBadCollapseID, fmt.Sprintf("collapse ID has %d bytes, expected at most 64", len(m.CollapseID))}
	case !isHeaderValue(m.CollapseID):
		return &fieldError{ReasonBadCollapseID, fmt.Sprintf("collapse ID is %q, expected printable ASCII", m.CollapseID)}
	case m.APNsID != "" && !isUUID(m.APNsID):
		return &fieldError{ReasonBadMessageID, fmt.Sprintf("APNs ID is %q, expected a UUID as 123e4567-e89b-12d3-a456-4266554400a0", m.APNsID)}
	}
	switch priority {
	case 0, PriorityImmediate, PriorityPowerSaving, PriorityLowest:
		return checkImpliedType(m, pushType)
	}
	return &fieldError{ReasonBadPriority, fmt.Sprintf("priority is %d, expected %d, %d or %d, or 0 to leave it out",
		m.Priority, PriorityImmediate, PriorityPowerSaving, PriorityLowest)}
}

// checkImpliedType checks that the payload of a message without a push type does not require
// another one than the default.
func checkImpliedType(m *Message, byDefault PushType) error {
	if m.PushType != "" {
		return nil
	}
	if implied := impliedPushType(m.Payload); implied != "" && implied != byDefault {
		return &fieldError{ReasonInvalidPushType, fmt.Sprintf("push type is empty, expected %q for the keys in the aps of the payload", implied)}
	}
	return nil
}

// defaults returns the fields of a message that have defaults.
func (p *provider) defaults(m *Message) (topic string, pushType PushType, priority Priority) {
	topic, pushType, priority = m.Topic, m.PushType, m.Priority
	if m.Channel != "" {
		return "", PushTypeLiveActivity, cmp.Or(priority, PriorityImmediate)
	}
	if pushType == "" {
		pushType = PushTypeAlert
	}
	if topic == "" {
		topic = p.topics.of(pushType)
	}
	if priority == 0 && pushType == PushTypeBackground {
		priority = PriorityPowerSaving
	}
	return topic, pushType, priority
}

// request returns the request of a delivery, whose message was checked. It is valid until
// the next call, and shares the message's payload.
//
// What Apple asks of the compression is in "Sending notification requests to APNs":
// authorization stays out of the table, and so do the values of apns-id,
// apns-expiration and apns-collapse-id after the first.
func (p *provider) request(d *delivery) (r *h2.Request, err error) {
	r = &p.out
	if p.tokens != nil {
		if err := p.authorize(); err != nil {
			return nil, err
		}
	}
	if c, ok := d.source.(*channelCall); ok {
		p.channelRequest(c)
		return r, nil
	}
	m := d.message
	topic, pushType, priority := p.defaults(m)
	r.Method, r.Authority, r.Dir, r.Name, r.Body = "POST", p.host, "/3/device/", m.Token, m.Payload
	r.Fields = r.Fields[:0]
	id := "apns-id"
	if m.Channel != "" {
		r.Dir, r.Name, id = "/4/broadcasts/apps/", p.topics.bundleID, "apns-request-id"
		p.add("apns-channel-id", m.Channel, hpack.Index)
	}
	// APNs needs no content-length; some proxies do.
	p.add("content-length", strconv.Itoa(len(m.Payload)), hpack.Literal)
	p.add("apns-topic", topic, hpack.Index)
	p.add("apns-push-type", string(pushType), hpack.Index)
	switch priority {
	case PriorityImmediate:
		p.add("apns-priority", "10", hpack.Index)
	case PriorityPowerSaving:
		p.add("apns-priority", "5", hpack.Index)
	case PriorityLowest:
		p.add("apns-priority", "1", hpack.Index)
	}
	if !m.Expiry.IsZero() || m.Channel != "" {
		p.add("apns-expiration", strconv.FormatInt(max(m.Expiry.Unix(), 0), 10), hpack.IndexName)
	}
	p.add("apns-collapse-id", m.CollapseID, hpack.IndexName)
	p.add(id, m.APNsID, hpack.IndexName)
	return r, nil
}

// add adds a field to the request, unless the value is empty.
func (p *provider) add(name, value string, indexing hpack.Indexing) {
	if value != "" {
		p.out.Fields = append(p.out.Fields, h2.Field{Name: name, Value: value, Indexing: indexing})
	}
}

// authorize puts the provider token into the request. Only the writer calls it, so that
// no message with the old token follows one with the new: Apple counts the changes.
func (p *provider) authorize() error {
	bearer, refreshed, err := p.tokens.next()
	p.renewed = p.renewed || refreshed
	if err != nil || bearer == p.bearer {
		return err
	}
	p.bearer = bearer
	p.token++
	p.out.Literals = hpack.AppendLiteral(p.out.Literals[:0], "authorization", bearer)
	p.out.LiteralSize = len("authorization") + len(bearer) + 32
	return nil
}

// noteExpired notes that the server found a provider token expired, and reports whether the
// next request will have another one.
func (p *provider) noteExpired(token uint32) bool {
	return token != p.token || p.tokens.expired(p.bearer)
}

// answer returns what became of a message. why is the reason for a missing answer, or
// nil.
func (p *provider) answer(r *delivery, o *h2.Outcome, why error) answer {
	if mutated(http2Twice) && o.Kind == h2.Lost && why != nil {
		o.Kind = h2.Unprocessed
	}
	switch o.Kind {
	case h2.Answered:
		return p.response(r, o, why)
	case h2.Malformed:
		text := "the answer breaks the rules of HTTP/2: " + p.excerpt(o.Text, len(o.Text), r.message)
		if o.Response != nil {
			text += fmt.Sprintf(" (HTTP status %d%s)", o.Response.Status, p.bodyOf(o.Response, r.message))
		}
		return answer{kind: lost, err: fmt.Errorf("%w: %s", ErrInDoubt, text)}
	case h2.Reset:
		return answer{kind: lost, err: fmt.Errorf("%w: the server reset the stream (%v)", ErrInDoubt, o.Code)}
	case h2.Lost:
		if errors.Is(why, ErrRefused) {
			why = errors.New(why.Error()) // it was sent
		}
		if errors.Is(why, context.Canceled) || errors.Is(why, context.DeadlineExceeded) {
			return answer{kind: lost, err: fmt.Errorf("%w: no answer from the server: %w", ErrInDoubt, why)}
		}
		return answer{kind: lost, err: fmt.Errorf("%w: %w", ErrInDoubt, why)}
	}
	a := answer{kind: unprocessed}
	switch {
	case o.Text == "":
		a.err = fmt.Errorf("%w: %w", ErrNotSent, why)
	case why == nil:
		a.err = fmt.Errorf("%w: %s", ErrNotSent, o.Text)
	default:
		a.err = fmt.Errorf("%w: %s: %w", ErrNotSent, o.Text, why)
	}
	switch {
	case errors.Is(why, ErrRefused):
		a.kind = refused
	case mutated(http2Lost):
		return answer{}
	}
	return a
}

// response returns what the server's response to a message means. why is the reason
// if it was cut off, or nil.
func (p *provider) response(r *delivery, o *h2.Outcome, why error) answer {
	response := o.Response
	c, isCall := r.source.(*channelCall)
	switch {
	case isCall && response.Status == c.success:
		return c.answer(response, why)
	case !isCall && response.Status == 200:
		return answer{receipt: Receipt{APNsID: responseID(response), UniqueID: string(response.Get("apns-unique-id"))}}
	}
	reason, deadAt := readAnswer(response.Body)
	said := &answerError{reason, response.Status}
	notSent := fmt.Errorf("%w: %w", ErrNotSent, said)
	switch {
	case reason == "" && (response.Status/100 != 4 || response.Status == 408):
		return p.foreignResponse(r, o, why)
	case reason == ReasonExpiredProviderToken && p.tokens != nil && p.noteExpired(r.token):
		return answer{kind: unprocessed, err: notSent} // the next attempt has a new token
	case reason.refusesSender():
		refusal := fmt.Errorf("the server refuses this sender: %w", said)
		if reason == ReasonMissingProviderToken && p.anonymous {
			refusal = fmt.Errorf("%w: Config has neither a Key nor a certificate", refusal)
		}
		return answer{kind: refused, err: fmt.Errorf("%w: %w", ErrNotSent, &refusedError{refusal})}
	case reason.endsConnection():
		return answer{kind: draining, err: fmt.Errorf("%w: %w", ErrNotSent, &drainError{said})}
	case reason == ReasonTooManyProviderTokenUpdates:
		return answer{kind: throttled, err: notSent}
	}
	e := &PushError{
		ID:         r.message.ID,
		HTTPStatus: response.Status,
		Reason:     reason,
		APNsID:     responseID(response),
		RetryAfter: retryAfter(string(response.Get("retry-after"))),
	}
	if response.Status == 410 && reason != "" {
		e.DeadAt = deadAt
	}
	a := answer{kind: rejected, err: e, retryAfter: e.RetryAfter}
	switch {
	case !e.Retryable():
	case reason == ReasonTooManyRequests:
		a.kind = throttled
	default:
		a.kind = failing
	}
	return a
}

// responseID returns the server's ID for a message, or for a request about channels.
func responseID(r *h2.Response) string {
	id := r.Get("apns-id")
	if id == nil {
		id = r.Get("apns-request-id")
	}
	return string(id)
}

// foreignResponse returns what a response means that APNs does not give. A proxy may,
// after it has passed the message on.
func (p *provider) foreignResponse(r *delivery, o *h2.Outcome, why error) answer {
	a, is := answer{kind: lost, blames: o.Response.Status/100 == 5}, ErrInDoubt
	if o.Early {
		a.kind, is = unprocessed, ErrNotSent
	}
	text := fmt.Sprintf("HTTP status %d without a reason from APNs%s", o.Response.Status, p.bodyOf(o.Response, r.message))
	if !o.Response.Whole && why != nil {
		a.err = fmt.Errorf("%w: %s, and then: %w", is, text, why)
	} else {
		a.err = fmt.Errorf("%w: %s", is, text)
	}
	return a
}

// bodyOf returns what to say of the body of a response.
func (p *provider) bodyOf(r *h2.Response, m *Message) string {
	if len(r.Body) == 0 {
		return ""
	}
	return fmt.Sprintf(", and the body begins with %q", p.excerpt(string(r.Body), 100, m))
}

// excerpt returns the first bytes of what a server or proxy said about a message. It leaves
// out what is secret: an error page may repeat the path or all of the request.
func (p *provider) excerpt(said string, limit int, m *Message) string {
	return secret.Excerpt(said, limit, m.Token, string(m.Payload), strings.TrimPrefix(p.bearer, "bearer "))
}

// readAnswer reads the JSON of a rejection, or of a GOAWAY. A body that is not such JSON
// gives no reason: it may come from a proxy.
func readAnswer(b []byte) (reason Reason, at time.Time) {
	var answer struct {
		Reason    Reason          `json:"reason"`
		Timestamp json.RawMessage `json:"timestamp"`
	}
	if json.Unmarshal(b, &answer) != nil {
		return "", time.Time{}
	}
	// The timestamp is in milliseconds. Below 10^11 it is read as seconds: 10^11 ms is
	// in 1973, and 10^11 s in the year 5138.
	n, err := strconv.ParseFloat(string(answer.Timestamp), 64)
	switch {
	case err != nil || n <= 0 || n > 1e14:
		return answer.Reason, time.Time{}
	case n < 1e11:
		n *= 1000
	}
	return answer.Reason, time.UnixMilli(int64(n)).UTC()
}

// retryAfter reads seconds or a date; what is neither is zero.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} { // RFC 9110, section 5.6.7
		if t, err := time.Parse(layout, s); err == nil {
			return max(time.Until(t), 0)
		}
	}
	return 0
}

func isHeaderValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if hexDigits[s[i]] == 0 {
				return false
			}
		}
	}
	return true
}

// An answerError is an answer that is about the sender or the connection, and not about the
// message.
type answerError struct {
	reason Reason
	status int
}

func (e *answerError) Error() string { return fmt.Sprintf("%s (HTTP status %d)", e.reason, e.status) }
func (e *answerError) Unwrap() error { return e.reason }

// A drainError is an answer with which the server ends the connection, without
// having processed the message.
type drainError struct{ err error }

func (e *drainError) Error() string {
	return fmt.Sprintf("the server takes no more messages on this connection: %v", e.err)
}
func (e *drainError) Unwrap() error { return e.err }

// A goAway is the server's announcement that it takes no more messages.
type goAway struct {
	code   h2.Code
	reason Reason
	debug  string // of which the reason is a part
}

func newGoAway(g *h2.GoAway) *goAway {
	reason, _ := readAnswer([]byte(g.Debug))
	return &goAway{code: g.Code, reason: reason, debug: secret.HideTokens(g.Debug)}
}

func (g *goAway) Error() string {
	switch {
	case g.reason != "":
		return "the server takes no more messages on this connection (GOAWAY): " + string(g.reason)
	case g.debug != "":
		return fmt.Sprintf("the server takes no more messages on this connection (GOAWAY, %v): %q", g.code, g.debug)
	}
	return fmt.Sprintf("the server takes no more messages on this connection (GOAWAY, %v)", g.code)
}

func (g *goAway) Unwrap() error {
	switch {
	case g.reason == "":
		return nil
	case g.reason.refusesSender():
		return &refusedError{g.reason}
	}
	return g.reason
}

// generalError returns the reason why a connection ended, as an error for any message.
// A GOAWAY's reason that may be about another message stays in the text only.
func generalError(err error) error {
	if g, ok := err.(*goAway); ok && !g.reason.isGeneral() {
		return errors.New(g.Error())
	}
	return err
}
