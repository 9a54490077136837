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

// check reads a request as the HTTP/2 provider API does, and says what is wrong
// with it. The sources are "Sending notification requests to APNs" and "Handling
// notification responses from APNs".
func (a *authState) check(st *stream) (*apns.Message, error) {
	m := &apns.Message{Payload: st.body}
	header := make(map[string]string)
	duplicate := false
	for _, f := range st.fields {
		if _, ok := header[f.name]; ok && f.name != "cookie" {
			duplicate = true
		}
		header[f.name] = f.value
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

// checkDelivery checks how a message is to be delivered, and fills that in.
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
	if m.PushType == apns.PushTypeVoIP {
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

// checkTopic checks the topic against the push type and the credentials, and
// fills in that of the certificate.
func (a *authState) checkTopic(m *apns.Message) error {
	if m.Topic == "" && a.cert {
		m.Topic = Topic
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
		return apns.ReasonForbidden // with a provider token only
	case !fits || base == "":
		return apns.ReasonBadTopic
	case pushType == apns.PushTypeMDM && !strings.HasPrefix(m.Topic, "com.apple.mgmt."):
		return apns.ReasonBadTopic
	case a.cert && pushType != apns.PushTypeMDM && base != Topic:
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

// An authState is what a connection knows of who sends on it.
type authState struct {
	server  *Server
	cert    bool // a certificate speaks for the sender
	trusted bool // a message with a valid token was accepted

	bearer  string    // the last valid one
	since   time.Time // when it came first
	keyID   string    // of the first one, as is the team
	teamID  string
	expires time.Time // when the server checks it again
}

func newAuthState(s *Server, state tls.ConnectionState) authState {
	return authState{server: s, cert: len(state.PeerCertificates) > 0}
}

// tokenMinAge is how long a connection must keep its provider token.
const tokenMinAge = 20 * time.Minute

// authenticate checks the authorization header. See "Establishing a token-based
// connection to APNs".
func (a *authState) authenticate(authorization string) error {
	if a.cert {
		return nil // and the header is ignored
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

// verifyToken checks the signature of a JWT and returns what it says.
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

// checkToken checks a message's device token against those that were registered,
// if any were, and for the topic unless that is empty.
func (s *Server) checkToken(m *apns.Message, topic string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, known := s.devices[m.Token]
	switch {
	case known && !d.deadAt.IsZero() && topic == "":
		return nil // the feedback service has it
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

// toReason returns the Reason that an error comes to. See Status.Is.
func toReason(err error) apns.Reason {
	if e, ok := errors.AsType[*apns.PushError](err); ok && (e.HTTPStatus != 0 || e.Reason != "") {
		return e.Reason
	}
	if r, ok := errors.AsType[apns.Reason](err); ok {
		return r
	}
	for _, r := range []apns.Reason{
		apns.ReasonMissingDeviceToken, apns.ReasonMissingTopic, apns.ReasonPayloadEmpty, apns.ReasonBadDeviceToken,
		apns.ReasonBadTopic, apns.ReasonPayloadTooLarge, apns.ReasonShutdown,
	} {
		if errors.Is(err, r) {
			return r
		}
	}
	return apns.ReasonInternalServerError
}

// toStatus returns the Status with which the binary gateway would have said what
// a Reason says.
func toStatus(r apns.Reason) apns.Status {
	switch r {
	case apns.ReasonBadDeviceToken, apns.ReasonDeviceTokenNotForTopic, apns.ReasonUnregistered, apns.ReasonExpiredToken:
		return apns.StatusInvalidToken
	case apns.ReasonMissingDeviceToken:
		return apns.StatusMissingToken
	case apns.ReasonMissingTopic:
		return apns.StatusMissingTopic
	case apns.ReasonBadTopic, apns.ReasonTopicDisallowed:
		return apns.StatusInvalidTopicSize
	case apns.ReasonPayloadEmpty:
		return apns.StatusMissingPayload
	case apns.ReasonPayloadTooLarge:
		return apns.StatusInvalidPayloadSize
	}
	return apns.StatusProcessingError
}

// httpStatus returns the HTTP status that goes with a reason.
func httpStatus(r apns.Reason) int {
	switch r {
	case apns.ReasonBadCertificate, apns.ReasonBadCertificateEnvironment, apns.ReasonExpiredProviderToken,
		apns.ReasonForbidden, apns.ReasonInvalidProviderToken, apns.ReasonMissingProviderToken,
		apns.ReasonUnrelatedKeyIDInToken, apns.ReasonBadEnvironmentKeyIDInToken, apns.ReasonTopicMismatch:
		return 403
	case apns.ReasonBadPath:
		return 404
	case apns.ReasonMethodNotAllowed:
		return 405
	case apns.ReasonExpiredToken, apns.ReasonUnregistered:
		return 410
	case apns.ReasonPayloadTooLarge:
		return 413
	case apns.ReasonTooManyProviderTokenUpdates, apns.ReasonTooManyRequests:
		return 429
	case apns.ReasonInternalServerError:
		return 500
	case apns.ReasonServiceUnavailable, apns.ReasonShutdown:
		return 503
	}
	return 400
}

func isUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	_, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && strings.Count(s, "-") == 4
}

// newUUID returns a random UUID, in upper case as Apple's are.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
