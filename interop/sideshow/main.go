// Command sideshow pushes with github.com/sideshow/apns2 over HTTP/2 to localhost, to one
// token after the other, and prints a line for each outcome.
//
//	sideshow <folder> <port> key|certificate <clock-offset-in-seconds> <token>...
//
// The folder is the -dir of examples/local. The test runs the scenarios of apnstest. This is
// a module of its own, so that the module of package apns has no requirements.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/payload"
	"github.com/sideshow/apns2/token"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 6 {
		log.Fatal("usage: sideshow <folder> <port> key|certificate <clock-offset-in-seconds> <token>...")
	}
	dir, port, credentials := os.Args[1], os.Args[2], os.Args[3]
	offset, err := strconv.Atoi(os.Args[4])
	check(err)
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	dial := apns2.DialTLS
	apns2.DialTLS = func(network, addr string, config *tls.Config) (net.Conn, error) {
		config.RootCAs = roots
		return dial(network, addr, config)
	}

	var client *apns2.Client
	if credentials == "key" {
		key, err := token.AuthKeyFromFile(filepath.Join(dir, "AuthKey_APNSTESTK1.p8"))
		check(err)
		t := &token.Token{AuthKey: key, KeyID: "APNSTESTK1", TeamID: "APNSTESTT1"}
		if offset != 0 {
			// This signs a token as t.Generate does, with another clock.
			iat := time.Now().Unix() + int64(offset)
			j := &jwt.Token{
				Header: map[string]any{"alg": "ES256", "kid": t.KeyID},
				Claims: jwt.MapClaims{"iss": t.TeamID, "iat": iat},
				Method: jwt.SigningMethodES256,
			}
			t.IssuedAt = time.Now().Unix()
			t.Bearer, err = j.SignedString(key)
			check(err)
		}
		client = apns2.NewTokenClient(t)
	} else {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		check(err)
		client = apns2.NewClient(cert)
	}
	client.Host = "https://localhost:" + port
	client.HTTPClient.Timeout = 10 * time.Second

	for _, s := range os.Args[5:] {
		res, err := client.Push(&apns2.Notification{
			DeviceToken: s,
			Topic:       "com.example.app",
			PushType:    apns2.PushTypeAlert,
			Priority:    apns2.PriorityLow,
			Expiration:  time.Now().AddDate(0, 0, 1),
			Payload:     payload.NewPayload().Alert("Grüße").Badge(1),
		})
		switch {
		case err != nil:
			fmt.Println("failed", s, err)
		case res.Sent():
			fmt.Println("accepted", s)
		case res.Timestamp.IsZero():
			fmt.Println("rejected", res.StatusCode, res.Reason, s)
		default:
			fmt.Println("rejected", res.StatusCode, res.Reason, s, res.Timestamp.UnixMilli())
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
