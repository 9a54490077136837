package examples_test

import (
	"slices"
	"strings"
	"testing"

	"example.com/apns/apnstest"
)

// Without -type the push type is the one that the payload shows, for one device and for many,
// also if a line of -tokens has the payload.
func TestPushTypeOfPayload(t *testing.T) {
	s := apnstest.NewUnstartedServer(nil)
	s.Lenient = true // some payloads are incomplete
	s.Start()
	defer s.Close()
	h2 := protocols(t, s)[0].args
	for _, test := range []struct{ payload, want string }{
		{`{"aps":{"alert":"Hi"}}`, "alert"},
		{`{"aps":{"content-available":1}}`, "background"},
		{"\n{ \"a\": 1, \"aps\" : { \"content-available\" : 1 } }\n", "background"},
		{`{"aps":{"content-available":1,"alert":"Hi"}}`, "alert"},
		{`{"aps":{"content-available":0}}`, "alert"},
		{`{"aps":{"event":"end","timestamp":1700000000}}`, "liveactivity"},
		{`{"aps":{"event":"update","content-state":{},"timestamp":1700000000}}`, "liveactivity"},
		{`{"aps":{"content-changed":true}}`, "widgets"},
		{`{"mdm":"magic"}`, "mdm"},
		{`{"event":"end","aps":{"alert":"Hi"},"MDM":1,"Aps":{"event":"end"}}`, "alert"},
		{`{"aps":[]}`, "alert"},
		{`{}`, "alert"},
	} {
		name := file(t, "payload.json", []byte(test.payload))
		line := token + "\t" + strings.TrimSpace(test.payload)
		for _, call := range []struct {
			stdin string
			args  []string
			want  string
		}{
			{"", []string{"-payload", name, token}, test.want},
			{token, []string{"-payload", name, "-tokens", "-"}, test.want},
			{line, []string{"-tokens", "-"}, test.want},
			{line, []string{"-tokens", "-", "Hi"}, test.want},
			{line, []string{"-tokens", "-", "-payload", file(t, "other.json", []byte(`{"aps":{"content-available":1}}`))}, test.want},
			{line, []string{"-tokens", "-", "-type", "voip"}, "voip"},
			{"", []string{"-payload", name, "-type", "voip", token}, "voip"},
		} {
			stdout, stderr, status := run(t, []byte(call.stdin), "push", slices.Concat(h2, call.args)...)
			records := s.Records()
			if status != 0 || len(records) != 1 || string(records[0].Message.PushType) != call.want {
				t.Errorf("%s: %v: got %q, %q, %d, %+v; want push type %s", test.payload, call.args[0], stdout, stderr, status, records, call.want)
			}
			s.ClearRecords()
		}
	}
}

// With -local, push prints each rule that the messages break once, on standard error.
func TestPushLocalWarnings(t *testing.T) {
	background := file(t, "background.json", []byte(`{"aps":{"content-available":1}}`))
	const warning = "warning: apns-push-type: is alert, expected background for a payload with content-available and no alert, badge or sound (Sending notification requests to APNs)\n"
	const received = "server received: token " + token + ", topic com.example.app, type "
	two := token + "\nc0ffee\n"
	for name, test := range map[string]struct {
		stdin          string
		args           []string
		stdout, stderr string // the beginning of standard output
		status         int
	}{
		"none":          {"", []string{"-payload", background, token}, received + "background, collapse ID -, priority 5, expiry -, payload {", "", 0},
		"one":           {"", []string{"-type", "alert", "-payload", background, token}, received + "alert, collapse ID -, priority -, expiry -, payload {", warning, 0},
		"JSON":          {"", []string{"-json", "-type", "alert", "-payload", background, token}, `{"token":"` + token + `","outcome":"accepted","apns_id":"`, warning, 0},
		"many":          {two, []string{"-type", "alert", "-payload", background, "-tokens", "-"}, "accepted: 2\n", warning, 0},
		"many, JSON":    {two, []string{"-json", "-type", "alert", "-payload", background, "-tokens", "-"}, `{"line":`, "accepted: 2\n" + warning, 0},
		"many, no rule": {two, []string{"-payload", background, "-tokens", "-"}, "accepted: 2\n", "", 0},
		"binary":        {"", []string{"-protocol", "binary", "-payload", background, token}, "server received: token " + token + ", topic -, type -, collapse ID -, priority -, expiry now or never, payload {", "", 0},
	} {
		stdout, stderr, status := run(t, []byte(test.stdin), "push", append([]string{"-local"}, test.args...)...)
		if !strings.HasPrefix(stdout, test.stdout) || stderr != test.stderr || status != test.status {
			t.Errorf("%s: got %q, %q, %d; want %q, %q, %d", name, stdout, stderr, status, test.stdout, test.stderr, test.status)
		}
	}
}
