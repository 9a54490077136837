package apnstest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"example.com/apns"
)

// A Device is what Register and Unregister have said about a device token.
type Device struct {
	// Token is the device token in lower case.
	Token string

	// Topics are the topics that the token is registered for, sorted.
	Topics []string

	// DeadAt is when the device lost the app. It is zero while the device has it.
	DeadAt time.Time
}

// Devices returns what Register and Unregister have said about device tokens, sorted by token.
func (s *Server) Devices() []Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Device, 0, len(s.devices))
	for token, d := range s.devices {
		list = append(list, Device{token, slices.Sorted(maps.Keys(d.topics)), d.deadAt})
	}
	slices.SortFunc(list, func(a, b Device) int { return cmp.Compare(a.Token, b.Token) })
	return list
}

// ForgetDevices makes the server forget what Register and Unregister have said about the
// device tokens, or about all tokens if none is given. Once no token is registered, every
// token is valid again, as before the first call of Register. Feedback records stay.
func (s *Server) ForgetDevices(tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(tokens) == 0 {
		clear(s.devices)
	}
	for _, token := range tokens {
		delete(s.devices, strings.ToLower(token))
	}
	s.registered = false
	for _, d := range s.devices {
		s.registered = s.registered || len(d.topics) > 0
	}
}

// Feedback returns the list of the feedback service, which it sends to the next client.
func (s *Server) Feedback() []apns.Feedback {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.feedback)
}

// ClearFeedback empties the list of the feedback service.
func (s *Server) ClearFeedback() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feedback = nil
}
