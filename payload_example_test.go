package apns_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"example.com/apns"
)

func ExamplePayload_Message() {
	p := &apns.Payload{
		Alert:    apns.Alert{Title: "Bob & Ann", Body: "Tea at five?"},
		Badge:    new(1),
		Sound:    "default",
		Category: "INVITATION",
		Custom:   map[string]any{"meeting": 4711},
	}
	m, err := p.Message("00c0ffee")
	if err != nil {
		log.Fatal(err)
	}
	m.CollapseID = "meeting-4711"
	fmt.Println(m.PushType)
	fmt.Println(string(m.Payload))
	// Output:
	// alert
	// {"aps":{"alert":{"title":"Bob & Ann","body":"Tea at five?"},"badge":1,"sound":"default","category":"INVITATION"},"meeting":4711}
}

// The app's ContentState is a Swift struct with the same names.
func ExamplePayload_Message_liveActivity() {
	type delivery struct {
		StopsAway int `json:"stopsAway"`
	}
	p := &apns.Payload{
		LiveActivity: &apns.LiveActivity{
			Event:        apns.ActivityUpdate,
			Timestamp:    time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
			ContentState: delivery{StopsAway: 2},
		},
	}
	m, err := p.Message("00c0ffee")
	if err != nil {
		log.Fatal(err)
	}
	m.Priority = apns.PriorityPowerSaving // does not count against the activity's budget
	fmt.Println(m.PushType)
	fmt.Println(string(m.Payload))
	// Output:
	// liveactivity
	// {"aps":{"timestamp":1795435200,"event":"update","content-state":{"stopsAway":2}}}
}

// A background push has content-available and nothing else in aps.
func ExamplePayload_Message_background() {
	p := &apns.Payload{ContentAvailable: true, Custom: map[string]any{"folder": "inbox"}}
	m, err := p.Message("00c0ffee")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.PushType, m.Priority)
	fmt.Println(string(m.Payload))
	// Output:
	// background 5
	// {"aps":{"content-available":1},"folder":"inbox"}
}

// A VoIP push has only the app's own keys. They do not show the type, so the caller sets it.
// It also sets the larger limit of the type.
func ExamplePayload_Message_voIP() {
	p := &apns.Payload{
		Type:   apns.PushTypeVoIP,
		Custom: map[string]any{"caller": "Ann", "offer": strings.Repeat("v=0 ", 1200)},
	}
	m, err := p.Message("00c0ffee")
	if err != nil {
		log.Fatal(err)
	}
	m.Expiry = time.Unix(0, 0) // now or never
	fmt.Println(m.PushType, len(m.Payload))
	// Output:
	// voip 4836
}

// A Live Activity's alert is shown when it starts. Its texts may be localized.
func ExampleLiveActivity() {
	p := &apns.Payload{
		Alert: apns.Alert{Title: "Your parcel", LocKey: "STOPS_AWAY_%@", LocArgs: []string{"9"}},
		Sound: "default",
		LiveActivity: &apns.LiveActivity{
			Event:          apns.ActivityStart,
			Timestamp:      time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
			ContentState:   map[string]any{"stopsAway": 9},
			AttributesType: "DeliveryAttributes",
			Attributes:     map[string]any{"parcel": "4711"},
		},
	}
	b, err := json.MarshalIndent(p, "", "  ") // Encode gives the same without white space
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {
	//   "aps": {
	//     "alert": {
	//       "title": "Your parcel",
	//       "body": {
	//         "loc-key": "STOPS_AWAY_%@",
	//         "loc-args": [
	//           "9"
	//         ]
	//       },
	//       "sound": "default"
	//     },
	//     "timestamp": 1795435200,
	//     "event": "start",
	//     "content-state": {
	//       "stopsAway": 9
	//     },
	//     "attributes-type": "DeliveryAttributes",
	//     "attributes": {
	//       "parcel": "4711"
	//     }
	//   }
	// }
}

// What breaks a rule is not encoded.
func ExamplePayload_Encode_refused() {
	p := &apns.Payload{CriticalSound: &apns.CriticalSound{Name: "alarm.caf", Volume: new(11.0)}}
	_, err := p.Encode()
	fmt.Println(err)

	p = &apns.Payload{Alert: apns.Alert{Body: strings.Repeat("la ", 1400)}}
	_, err = p.Encode()
	fmt.Println(err)
	fmt.Println(errors.Is(err, apns.StatusInvalidPayloadSize))
	// Output:
	// apns: payload: volume is 11, expected 0 to 1
	// apns: payload has 4229 bytes, expected at most 4096 (ShortenBody shortens the text)
	// true
}

// A text that is too long is shortened rather than refused. An emoji stays whole.
func ExamplePayload_shortenBody() {
	p := &apns.Payload{
		Alert:       apns.Alert{Body: "Dinner at five 👩‍👩‍👧 bring the children"},
		ShortenBody: true,
		MaxSize:     65, // of a real one it is 4,096
	}
	for range 2 {
		m, err := p.Message("00c0ffee")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(m.Payload))
		p.MaxSize--
	}
	// Output:
	// {"aps":{"alert":{"body":"Dinner at five 👩‍👩‍👧…"}}}
	// {"aps":{"alert":{"body":"Dinner at five …"}}}
}
