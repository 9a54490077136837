package apns_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
)

// This tells all outcomes of a message apart, and what to do about each.
func ExampleClient_Push_outcomes() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	server.Register(apnstest.BundleID, "c0ffee", "decade")
	server.Unregister("decade", time.Unix(1700000000, 0))
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	for _, token := range []string{"c0ffee", "decade", "facade", "token"} {
		_, err := client.Push(context.Background(), &apns.Message{Token: token, Payload: apns.AlertPayload("Hello")})
		rejected, isRejected := errors.AsType[*apns.PushError](err)
		switch {
		case err == nil:
			fmt.Println("accepted")
		case errors.Is(err, apns.ReasonUnregistered), errors.Is(err, apns.ReasonExpiredToken):
			// DeadAt is zero if the server gave no time: then it is the time of the push.
			fmt.Println("remove the token, unless the app registered it after", rejected.DeadAt)
		case isRejected && rejected.Retryable():
			fmt.Println("send it once more later:", rejected.Reason)
		case isRejected:
			fmt.Println("correct the message:", rejected.Reason)
		case errors.Is(err, apns.ErrInDoubt):
			fmt.Println("it may have arrived:", err)
		case errors.Is(err, apns.ErrRefused):
			fmt.Println("correct the credentials:", err)
		case errors.Is(err, apns.ErrNotSent):
			fmt.Println("send it once more, it did not arrive:", err)
		case errors.Is(err, apns.ErrExpired):
			fmt.Println("too late")
		default: // it matches apns.ErrInvalid
			fmt.Println("correct the message:", err)
		}
	}
	// Output:
	// accepted
	// remove the token, unless the app registered it after 2023-11-14 22:13:20 +0000 UTC
	// correct the message: BadDeviceToken
	// correct the message: apns: token has 't' at index 0, expected only hexadecimal digits
}

// A key serves all apps of a team, so one Client serves them too: each message names its
// topic. Another team, or another environment, has a Client of its own.
func ExampleClient_teams() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	blueKey, err := apns.ParseAuthKey(server.AddAuthKey("BLUEKEY001", "BLUETEAM01"), "BLUEKEY001", "BLUETEAM01")
	if err != nil {
		log.Fatal(err)
	}
	blue := server.TokenConfig()
	blue.Key, blue.BundleID = blueKey, ""

	clients := map[string]*apns.Client{
		"red":  {Config: server.TokenConfig()},
		"blue": {Config: blue},
	}
	for _, client := range clients {
		defer client.Close()
	}
	for _, to := range []struct{ team, app, token string }{
		{"red", apnstest.BundleID, "c0ffee"},
		{"blue", "com.example.lunch", "decade"},
		{"blue", "com.example.dinner", "facade"},
	} {
		_, err := clients[to.team].Push(context.Background(), &apns.Message{
			Token:   to.token,
			Topic:   to.app,
			Payload: apns.AlertPayload("Hello"),
		})
		fmt.Println(to.app, err)
	}
	// Output:
	// com.example.app <nil>
	// com.example.lunch <nil>
	// com.example.dinner <nil>
}

// All requests of a web server share one Client. A request that is cancelled cancels its
// push.
func ExampleClient_handler() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	greet := func(w http.ResponseWriter, r *http.Request) {
		receipt, err := client.Push(r.Context(), &apns.Message{
			Token:   r.PathValue("token"),
			Payload: apns.AlertPayload(r.FormValue("text")),
			APNsID:  r.FormValue("id"),
		})
		switch {
		case err == nil:
			fmt.Fprintln(w, receipt.APNsID)
		case errors.Is(err, apns.ErrInvalid):
			http.Error(w, err.Error(), http.StatusBadRequest)
		default:
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /greet/{token}", greet)

	for _, path := range []string{
		"/greet/c0ffee?text=Hello&id=123e4567-e89b-12d3-a456-4266554400a0",
		"/greet/coffee?text=Hello",
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("POST", path, nil))
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 123e4567-e89b-12d3-a456-4266554400a0
	// 400 apns: token has 'o' at index 1, expected only hexadecimal digits
}

// This starts, updates and ends a Live Activity. Each event goes to the token that the app
// has sent for it.
func ExampleClient_liveActivity() {
	server := apnstest.NewServer(nil)
	defer server.Close()
	client := &apns.Client{Config: server.TokenConfig()}
	defer client.Close()

	type delivery struct {
		StopsAway int `json:"stopsAway"`
	}
	type parcel struct {
		Number string `json:"number"`
	}
	const toStart, toUpdate = "c0ffee", "decade" // the app has sent both
	now := time.Now()
	for _, event := range []struct {
		token    string
		alert    apns.Alert
		activity apns.LiveActivity
	}{
		{toStart, apns.Alert{Title: "Your parcel is on its way"}, apns.LiveActivity{
			Event:          apns.ActivityStart,
			Timestamp:      now,
			AttributesType: "ParcelAttributes", // a type of the app
			Attributes:     parcel{"4711"},
			ContentState:   delivery{StopsAway: 9},
		}},
		{toUpdate, apns.Alert{}, apns.LiveActivity{
			Event:        apns.ActivityUpdate,
			Timestamp:    now.Add(time.Minute),
			ContentState: delivery{StopsAway: 3},
			StaleDate:    now.Add(time.Hour),
		}},
		{toUpdate, apns.Alert{}, apns.LiveActivity{
			Event:         apns.ActivityEnd,
			Timestamp:     now.Add(time.Hour),
			ContentState:  delivery{StopsAway: 0},
			DismissalDate: now.Add(2 * time.Hour),
		}},
	} {
		payload := &apns.Payload{Alert: event.alert, LiveActivity: &event.activity}
		m, err := payload.Message(event.token)
		if err != nil {
			log.Fatal(err)
		}
		_, err = client.Push(context.Background(), m)
		fmt.Println(event.activity.Event, err)
	}
	for _, record := range server.Records() {
		fmt.Println(record.Message.Topic, record.Findings)
	}
	// Output:
	// start <nil>
	// update <nil>
	// end <nil>
	// com.example.app.push-type.liveactivity []
	// com.example.app.push-type.liveactivity []
	// com.example.app.push-type.liveactivity []
}
