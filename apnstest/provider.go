package apnstest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"example.com/apns"
)

// check returns the message of a request, the rules that it breaks, and the error with which
// the HTTP/2 provider API rejects it, if any. The sources are "Sending notification requests
// to APNs" and "Handling notification responses from APNs".
func (a *authState) check(st *stream) (*apns.Message, []Finding, error) {
	m := &apns.Message{Payload: st.body}
	if st.isBroadcast() {
		return a.checkBroadcast(m, st)
	}
	header, duplicate := st.header()
	token, ok := strings.CutPrefix(header[":path"], "/3/device/")
	if ok {
		m.Token = strings.ToLower(token)
	}
	m.Topic = header["apns-topic"]
	m.PushType = apns.PushType(header["apns-push-type"])
	m.CollapseID = header["apns-collapse-id"]
	if id := header["apns-id"]; isUUID(id) {
		m.APNsID = id
	}
	switch {
	case duplicate:
		return m, nil, apns.ReasonDuplicateHeaders
	case !ok || strings.Contains(token, "/"):
		return m, nil, apns.ReasonBadPath
	case header[":method"] != "POST":
		return m, nil, apns.ReasonMethodNotAllowed
	}
	if err := a.authenticate(header["authorization"]); err != nil {
		return m, nil, err
	}
	if m.Topic == "" && a.cert {
		m.Topic = BundleID // that of the certificate
	}
	in := inspection{lenient: a.server.Lenient}
	in.header(m, header)
	in.message(m)
	if st.tooLarge {
		return m, in.findings, apns.ReasonPayloadTooLarge // not all of it is in the message
	}
	if reason := in.reason(); reason != "" {
		return m, in.findings, reason
	}
	if err := a.checkCredentials(m); err != nil {
		return m, in.findings, err
	}
	return m, in.findings, a.server.checkToken(m, m.Topic)
}

// header returns the header of a request, and reports whether it has a field twice.
func (st *stream) header() (header map[string]string, duplicate bool) {
	header = make(map[string]string)
	for _, f := range st.fields {
		if _, ok := header[f.name]; ok && f.name != "cookie" {
			duplicate = true
		}
		header[f.name] = f.value
	}
	return header, duplicate
}

// header checks the header fields of a request, and sets the fields of the message that
// correspond to them.
func (in *inspection) header(m *apns.Message, header map[string]string) {
	if header["apns-id"] != m.APNsID {
		in.badID()
	}
	in.delivery(m, header)
	if m.Topic == "" {
		in.refuse(apns.ReasonMissingTopic, "apns-topic", sourceRespond, "is missing, expected one with a provider token")
	}
	if in.pushType = m.PushType; in.pushType == "" {
		in.pushType = apns.PushTypeAlert
		if !in.lenient {
			in.flag("apns-push-type", sourceSend, "is missing, expected one: without it the push may be delayed or dropped")
		}
	}
}

// delivery checks the header fields about the delivery of a message.
func (in *inspection) delivery(m *apns.Message, header map[string]string) {
	if s, ok := header["apns-expiration"]; ok {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			in.badExpiration()
		}
		m.Expiry = time.Unix(n, 0).UTC()
	}
	in.priority = apns.PriorityImmediate
	if s, ok := header["apns-priority"]; ok {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil {
			n = 0 // which is not a priority
		}
		m.Priority = apns.Priority(n)
		in.priority = m.Priority
	}
}

// checkCredentials checks the topic against the sender's certificate. With a provider token
// every topic is allowed.
func (a *authState) checkCredentials(m *apns.Message) error {
	if !a.cert || m.PushType == apns.PushTypeMDM {
		return nil
	}
	if m.PushType == apns.PushTypeLocation {
		return apns.ReasonForbidden // this push type requires a provider token
	}
	base := strings.TrimSuffix(m.Topic, m.PushType.Topic(""))
	if base == BundleID || a.server.Lenient && strings.HasPrefix(m.Topic, BundleID+".") {
		return nil
	}
	return apns.ReasonTopicDisallowed
}

// An authState has what a connection knows about the client's credentials.
type authState struct {
	server  *Server
	cert    bool // the client has a certificate
	trusted bool // a message was accepted, so its credentials were valid

	bearer  string    // the last valid provider token, with its "bearer " prefix
	since   time.Time // when the client changed to bearer
	expires time.Time // when bearer expires

	keyID, teamID string // of the first valid provider token; later ones must have the same
}

func newAuthState(s *Server, state tls.ConnectionState) authState {
	return authState{server: s, cert: len(state.PeerCertificates) > 0}
}

// tokenMinAge is how long a connection must use a provider token before it changes it.
const tokenMinAge = 20 * time.Minute

// authenticate checks the authorization header. See "Establishing a token-based
// connection to APNs".
func (a *authState) authenticate(authorization string) error {
	if a.cert {
		return nil // the header is ignored
	}
	now := time.Now()
	if authorization == a.bearer && a.bearer != "" && now.Before(a.expires) {
		return nil
	}
	jwt, ok := strings.CutPrefix(authorization, "bearer ")
	switch {
	case authorization == "":
		return apns.ReasonMissingProviderToken
	case !ok:
		return apns.ReasonInvalidProviderToken
	}
	keyID, teamID, issued, err := a.server.verifyToken(jwt)
	if err != nil {
		return apns.ReasonInvalidProviderToken
	}
	age := now.Sub(issued)
	switch {
	case age > time.Hour:
		return apns.ReasonExpiredProviderToken
	case age < -time.Hour:
		return apns.ReasonInvalidProviderToken
	case a.keyID != "" && teamID != a.teamID:
		return apns.ReasonInvalidProviderToken
	case a.keyID != "" && keyID != a.keyID:
		return apns.ReasonUnrelatedKeyIDInToken
	case a.bearer != "" && authorization != a.bearer && now.Sub(a.since) < tokenMinAge:
		return apns.ReasonTooManyProviderTokenUpdates
	}
	if authorization != a.bearer {
		a.since = now
	}
	a.bearer, a.keyID, a.teamID, a.expires = authorization, keyID, teamID, issued.Add(time.Hour)
	return nil
}

// verifyToken checks the signature of a provider token, which is a JWT, and returns its
// contents.
func (s *Server) verifyToken(jwt string) (keyID, teamID string, issued time.Time, err error) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return "", "", time.Time{}, errors.New("not a JWT")
	}
	var head struct{ Alg, Kid string }
	var claims struct {
		Iss string
		Iat int64
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err := errors.Join(err, decodeJSON(parts[0], &head), decodeJSON(parts[1], &claims)); err != nil {
		return "", "", time.Time{}, err
	}
	s.mu.Lock()
	key := s.keys[head.Kid]
	s.mu.Unlock()
	if head.Alg != "ES256" || key.public == nil || key.teamID != claims.Iss || len(signature) != 64 {
		return "", "", time.Time{}, errors.New("not of a known key")
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, ss := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(key.public, digest[:], r, ss) {
		return "", "", time.Time{}, errors.New("bad signature")
	}
	return head.Kid, claims.Iss, time.Unix(claims.Iat, 0), nil
}

func decodeJSON(part string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// checkToken checks the device token of a message against the registered ones, if any, and
// their topics. The topic is empty for a message on the binary protocol, which has none.
func (s *Server) checkToken(m *apns.Message, topic string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, known := s.devices[m.Token]
	switch {
	case known && !d.deadAt.IsZero() && topic == "":
		return nil // the gateway accepts it; the feedback service reports it
	case known && !d.deadAt.IsZero():
		return &apns.PushError{ID: m.ID, HTTPStatus: 410, Reason: apns.ReasonUnregistered, DeadAt: d.deadAt}
	case !s.registered:
		return nil
	case !known:
		return apns.ReasonBadDeviceToken
	case topic != "" && !d.topics[topic]:
		return apns.ReasonDeviceTokenNotForTopic
	}
	return nil
}

func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	_, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && strings.Count(s, "-") == 4
}

// newUUID returns a random UUID in upper case, as Apple's server does.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
