package apnstest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"example.com/apns"
)

// Broadcast channels. The sources are "Sending channel management requests to APNs",
// "Sending broadcast push notification requests to APNs" and "Handling error responses from
// Apple Push Notification service".

// ChannelsPort is the port of the channel management service in OnConnect. In memory the
// service listens on it. Apple's ports for it are those of the binary services.
const ChannelsPort = 2198

// maxChannels is how many channels an app can have.
const maxChannels = 10_000

// maxChannelID is the size of the largest channel ID in base64 that the server reads, in
// characters. Apple's limit is not published.
const maxChannelID = 1024

// missingQueueSize is the reason for a storage policy that is missing or unknown. Apple's
// pages do not list it.
const missingQueueSize apns.Reason = "MissingChannelQueueSize"

// An app has the channels of a bundle ID.
type app struct {
	ids     []string // in the order in which they were created
	storage map[string]apns.StoragePolicy
}

// CreateChannel creates a channel for the app with the bundle ID, and returns its ID. It
// panics if the app has 10,000 channels already.
func (s *Server) CreateChannel(bundleID string, storage apns.StoragePolicy) (id string) {
	id, err := s.createChannel(bundleID, storage)
	if err != nil {
		panic(fmt.Sprintf("apnstest: the app has %d channels, which is the limit", maxChannels))
	}
	return id
}

// Channels returns the IDs of the channels of the app with the bundle ID, in the order in
// which they were created.
func (s *Server) Channels(bundleID string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.channels[bundleID]; a != nil {
		return slices.Clone(a.ids)
	}
	return nil
}

func (s *Server) createChannel(bundleID string, storage apns.StoragePolicy) (id string, err error) {
	var b [16]byte
	rand.Read(b[:])
	id = base64.StdEncoding.EncodeToString(b[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.channels[bundleID]
	if a == nil {
		a = &app{storage: make(map[string]apns.StoragePolicy)}
		s.channels[bundleID] = a
	}
	if len(a.ids) >= maxChannels {
		return "", apns.ReasonCannotCreateChannelConfig
	}
	a.ids = append(a.ids, id)
	a.storage[id] = storage
	return id, nil
}

func (s *Server) deleteChannel(bundleID, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.channels[bundleID]
	if a == nil || !slices.Contains(a.ids, id) {
		return apns.ReasonChannelNotRegistered
	}
	a.ids = slices.DeleteFunc(a.ids, func(other string) bool { return other == id })
	delete(a.storage, id)
	return nil
}

// channel returns the storage policy of a channel, or the error for its ID.
func (s *Server) channel(bundleID, id string) (apns.StoragePolicy, error) {
	switch _, err := base64.StdEncoding.DecodeString(id); {
	case id == "":
		return 0, apns.ReasonMissingChannelID
	case err != nil || len(id) > maxChannelID:
		return 0, apns.ReasonBadChannelID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.channels[bundleID]; a != nil {
		if storage, ok := a.storage[id]; ok {
			return storage, nil
		}
	}
	return 0, apns.ReasonChannelNotRegistered
}

// broadcastPath is the path of broadcasts without the bundle ID, which follows.
const broadcastPath = "/4/broadcasts/apps/"

// isBroadcast reports whether a request is a broadcast.
func (st *stream) isBroadcast() bool {
	for _, f := range st.fields {
		if f.name == ":path" {
			return strings.HasPrefix(f.value, broadcastPath)
		}
	}
	return false
}

// checkBroadcast returns the broadcast of a request, the rules that it breaks, and the error
// with which it is rejected, if any.
func (a *authState) checkBroadcast(m *apns.Message, st *stream) (*apns.Message, []Finding, error) {
	header, duplicate := st.header()
	bundleID := strings.TrimPrefix(header[":path"], broadcastPath)
	m.Channel = header["apns-channel-id"]
	m.PushType = apns.PushType(header["apns-push-type"])
	id := header["apns-request-id"]
	if isUUID(id) {
		m.APNsID = id
	}
	switch {
	case duplicate:
		return m, nil, apns.ReasonDuplicateHeaders
	case bundleID == "" || strings.Contains(bundleID, "/"):
		return m, nil, apns.ReasonBadPath
	case header[":method"] != "POST":
		return m, nil, apns.ReasonMethodNotAllowed
	}
	if err := a.checkApp(header, bundleID); err != nil {
		return m, nil, err
	}
	switch {
	case m.PushType == "":
		return m, nil, apns.ReasonMissingPushType
	case m.PushType != apns.PushTypeLiveActivity:
		return m, nil, apns.ReasonInvalidPushType
	case header["apns-expiration"] == "":
		return m, nil, apns.ReasonBadExpirationDate
	case header["apns-priority"] == "":
		return m, nil, apns.ReasonBadPriority
	}
	in := inspection{lenient: a.server.Lenient, broadcast: true, pushType: m.PushType}
	in.delivery(m, header)
	in.message(m)
	if st.tooLarge {
		return m, in.findings, apns.ReasonPayloadTooLarge // not all of it is in the message
	}
	if reason := in.reason(); reason != "" {
		return m, in.findings, reason
	}
	storage, err := a.server.channel(bundleID, m.Channel)
	if err == nil && storage == apns.StoreNone && m.Expiry.Unix() != 0 {
		err = apns.ReasonBadExpirationDate
	}
	return m, in.findings, err
}

// checkApp checks the credentials for an app whose bundle ID is in the path of a request,
// and the ID of the request.
func (a *authState) checkApp(header map[string]string, bundleID string) error {
	if err := a.authenticate(header["authorization"]); err != nil {
		return err
	}
	id, hasID := header["apns-request-id"]
	switch {
	case hasSuffix(bundleID):
		return apns.ReasonTopicDisallowed
	case a.cert && bundleID != BundleID:
		return apns.ReasonTopicMismatch
	case hasID && !isUUID(id):
		return apns.ReasonBadMessageID
	}
	return nil
}

// hasSuffix reports whether a bundle ID has the suffix of a topic.
func hasSuffix(bundleID string) bool {
	for _, t := range []apns.PushType{
		apns.PushTypeLocation, apns.PushTypeVoIP, apns.PushTypeComplication, apns.PushTypeFileProvider,
		apns.PushTypeLiveActivity, apns.PushTypePushToTalk, apns.PushTypeWidgets, apns.PushTypeControls,
	} {
		if strings.HasSuffix(bundleID, t.Topic("")) {
			return true
		}
	}
	return false
}

// serveChannels serves channel management on a connection.
func (s *Server) serveChannels(c *conn) { s.serveRequests(c, ChannelsPort) }

// A channelCall is a call to channel management.
type channelCall struct {
	operation string
	bundleID  string
	channel   string // for read and delete
	storage   apns.StoragePolicy
}

// decideCall decides about a call to channel management. If it is accepted, it takes
// effect.
func (h *http2Conn) decideCall(st *stream) action {
	header, duplicate := st.header()
	id := header["apns-request-id"]
	if !isUUID(id) {
		id = newUUID()
	}
	st.success.id = headerField{"apns-request-id", id}
	c, err := h.auth.checkCall(st, header, duplicate)
	if err == nil && h.server.OnChannelCall != nil {
		err = h.server.OnChannelCall(c.operation, c.channel)
	}
	a := actionFor(err, 0).overHTTP2()
	if a.outcome == Accepted {
		if err := h.server.apply(c, &st.success); err != nil {
			a = actionFor(err, 0).overHTTP2()
		}
	}
	return a
}

// checkCall returns the call that a request is, or the error with which it is rejected.
func (a *authState) checkCall(st *stream, header map[string]string, duplicate bool) (channelCall, error) {
	path, ok := strings.CutPrefix(header[":path"], "/1/apps/")
	bundleID, resource, _ := strings.Cut(path, "/")
	c := channelCall{bundleID: bundleID, storage: -1}
	switch {
	case duplicate:
		return c, apns.ReasonDuplicateHeaders
	case !ok || bundleID == "" || resource != "channels" && resource != "all-channels":
		return c, apns.ReasonBadPath
	}
	switch resource + " " + header[":method"] {
	case "channels POST":
		c.operation = "create"
	case "channels GET":
		c.operation, c.channel = "read", header["apns-channel-id"]
	case "channels DELETE":
		c.operation, c.channel = "delete", header["apns-channel-id"]
	case "all-channels GET":
		c.operation = "list"
	default:
		return c, apns.ReasonMethodNotAllowed
	}
	if err := a.checkApp(header, bundleID); err != nil {
		return c, err
	}
	var err error
	switch c.operation {
	case "create":
		c.storage, err = readChannelConfig(st)
	case "read", "delete":
		c.storage, err = a.server.channel(bundleID, c.channel)
	}
	return c, err
}

// readChannelConfig reads the body of a request that creates a channel.
func readChannelConfig(st *stream) (apns.StoragePolicy, error) {
	var config struct {
		PushType *string          `json:"push-type"`
		Storage  *json.RawMessage `json:"message-storage-policy"`
	}
	d := json.NewDecoder(bytes.NewReader(st.body))
	d.DisallowUnknownFields()
	err := d.Decode(&config)
	switch {
	case st.tooLarge:
		return 0, apns.ReasonPayloadTooLarge
	case len(st.body) == 0:
		return 0, apns.ReasonPayloadEmpty
	case !json.Valid(st.body):
		return 0, apns.ReasonBadRequestPayload
	case err != nil:
		return 0, apns.ReasonBadRequestParams
	case config.PushType == nil:
		return 0, apns.ReasonMissingPushType
	case *config.PushType != "LiveActivity":
		return 0, apns.ReasonInvalidPushType
	case config.Storage == nil:
		return 0, missingQueueSize
	}
	switch string(*config.Storage) {
	case "0":
		return apns.StoreNone, nil
	case "1":
		return apns.StoreMostRecent, nil
	}
	return 0, missingQueueSize
}

// apply makes an accepted call take effect, and sets the response.
func (s *Server) apply(c channelCall, r *success) error {
	switch c.operation {
	case "create":
		id, err := s.createChannel(c.bundleID, c.storage)
		r.status, r.fields = 201, []headerField{{"apns-channel-id", id}}
		return err
	case "read":
		r.status, r.body = 200, fmt.Appendf(nil, `{"message-storage-policy":%d,"push-type":"LiveActivity"}`, c.storage)
	case "delete":
		r.status = 204
		return s.deleteChannel(c.bundleID, c.channel)
	case "list":
		r.status = 200
		ids := append([]string{}, s.Channels(c.bundleID)...) // not null
		var err error
		if r.body, err = json.Marshal(map[string][]string{"channels": ids}); err != nil {
			panic(err) // strings can always be encoded
		}
	}
	return nil
}
