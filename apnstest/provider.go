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

// check returns the message of a request, and the error with which the HTTP/2 provider API
// rejects it, if any. The sources are "Sending notification requests to APNs" and
// "Handling notification responses from APNs".
func (a *authState) check(st *stream) (*apns.Message, error) {
	m := &apns.Message{Payload: st.body}
	header, duplicate := st.header()
	if st.isBroadcast() {
		return m, a.checkBroadcast(m, st)
	}
	token, ok := strings.CutPrefix(header[":path"], "/3/device/")
	if ok {
		m.Token = strings.ToLower(token)
	}
	m.Topic = header["apns-topic"]
	m.PushType = apns.PushType(header["apns-push-type"])
	m.CollapseID = header["apns-collapse-id"]
	id := header["apns-id"]
	if isUUID(id) {
		m.APNsID = id
	}
	switch {
	case duplicate:
		return m, apns.ReasonDuplicateHeaders
	case !ok || strings.Contains(token, "/"):
		return m, apns.ReasonBadPath
	case header[":method"] != "POST":
		return m, apns.ReasonMethodNotAllowed
	}
	if err := a.authenticate(header["authorization"]); err != nil {
		return m, err
	}
	if m.APNsID != id {
		return m, apns.ReasonBadMessageID
	}
	if err := checkDelivery(m, header); err != nil {
		return m, err
	}
	if err := a.checkTopic(m); err != nil {
		return m, err
	}
	if err := checkPayload(m, st.tooLarge); err != nil {
		return m, err
	}
	if token == "" {
		return m, apns.ReasonMissingDeviceToken
	}
	if _, err := hex.DecodeString(token); err != nil || len(token) > 2*apns.MaxTokenSize {
		return m, apns.ReasonBadDeviceToken
	}
	return m, a.server.checkToken(m, m.Topic)
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

// checkDelivery checks the header fields about the delivery of a message, and sets the
// fields of the message that correspond to them.
func checkDelivery(m *apns.Message, header map[string]string) error {
	if s, ok := header["apns-expiration"]; ok {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return apns.ReasonBadExpirationDate
		}
		m.Expiry = time.Unix(n, 0).UTC()
	}
	if s, ok := header["apns-priority"]; ok {
		n, err := strconv.ParseUint(s, 10, 8)
		m.Priority = apns.Priority(n)
		if err != nil || n != 10 && n != 5 && n != 1 {
			return apns.ReasonBadPriority
		}
	}
	if m.PushType == apns.PushTypeBackground && m.Priority != apns.PriorityPowerSaving {
		return apns.ReasonBadPriority
	}
	if len(m.CollapseID) > 64 {
		return apns.ReasonBadCollapseID
	}
	return nil
}

func checkPayload(m *apns.Message, tooLarge bool) error {
	limit := apns.MaxPayload
	if m.PushType == apns.PushTypeVoIP || m.Channel != "" {
		limit = apns.MaxVoIPPayload
	}
	switch {
	case len(m.Payload) > limit || tooLarge:
		return apns.ReasonPayloadTooLarge
	case len(m.Payload) == 0:
		return apns.ReasonPayloadEmpty
	case !json.Valid(m.Payload):
		return apns.ReasonBadRequestPayload
	}
	return nil
}

// checkTopic checks the topic against the push type and the credentials. A message without
// a topic gets that of the certificate.
func (a *authState) checkTopic(m *apns.Message) error {
	if m.Topic == "" && a.cert {
		m.Topic = BundleID
	}
	pushType := m.PushType
	if pushType == "" {
		pushType = apns.PushTypeAlert
	}
	suffix := pushType.Topic("")
	base, fits := strings.CutSuffix(m.Topic, suffix)
	switch {
	case m.Topic == "":
		return apns.ReasonMissingTopic
	case !isPushType(pushType):
		return apns.ReasonInvalidPushType
	case a.cert && pushType == apns.PushTypeLocation:
		return apns.ReasonForbidden // this push type requires a provider token
	case !fits || base == "":
		return apns.ReasonBadTopic
	case pushType == apns.PushTypeMDM && !strings.HasPrefix(m.Topic, "com.apple.mgmt."):
		return apns.ReasonBadTopic
	case a.cert && pushType != apns.PushTypeMDM && base != BundleID:
		return apns.ReasonTopicDisallowed
	}
	return nil
}

func isPushType(t apns.PushType) bool {
	switch t {
	case apns.PushTypeAlert, apns.PushTypeBackground, apns.PushTypeLocation, apns.PushTypeVoIP,
		apns.PushTypeComplication, apns.PushTypeFileProvider, apns.PushTypeMDM, apns.PushTypeLiveActivity,
		apns.PushTypePushToTalk, apns.PushTypeWidgets, apns.PushTypeControls:
		return true
	}
	return false
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
