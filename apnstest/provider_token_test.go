package apnstest_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns/apnstest"
)

// A jwt describes a provider token. A zero field has the value of a valid token. The source
// is "Establishing a token-based connection to APNs".
type jwt struct {
	key      []byte // the .p8 file
	alg, kid string
	iss      string
	age      time.Duration
	iat      string // in place of the age
	der      bool   // the signature is in DER
	cut      bool   // there is no signature
	padding  bool   // the signature is in base64 with padding
}

// sign returns the token as an authorization header.
func (j jwt) sign(t *testing.T, s *apnstest.Server) string {
	t.Helper()
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	if j.key == nil {
		j.key = s.Certificates().AuthKey
	}
	block, _ := pem.Decode(j.key)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	head := fmt.Sprintf(`{"alg":%q,"kid":%q}`, or(j.alg, "ES256"), or(j.kid, apnstest.KeyID))
	claims := fmt.Sprintf(`{"iss":%q,"iat":%s}`, or(j.iss, apnstest.TeamID), or(j.iat, strconv.FormatInt(time.Now().Add(-j.age).Unix(), 10)))
	b := encode([]byte(head)) + "." + encode([]byte(claims))
	if j.cut {
		return "bearer " + b
	}
	digest := sha256.Sum256([]byte(b))
	r, ss, err := ecdsa.Sign(rand.Reader, key.(*ecdsa.PrivateKey), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), ss.FillBytes(make([]byte, 32))...)
	if j.der {
		if signature, err = asn1.Marshal(struct{ R, S *big.Int }{r, ss}); err != nil {
			t.Fatal(err)
		}
	}
	if j.padding {
		return "bearer " + b + "." + base64.URLEncoding.EncodeToString(signature)
	}
	return "bearer " + b + "." + encode(signature)
}

// A tokenStep is a request with a provider token of signTokens.
type tokenStep struct {
	after time.Duration // since the step before
	token string
	want  string
}

const (
	valid    = "200"
	expired  = "403 ExpiredProviderToken"
	invalid  = "403 InvalidProviderToken"
	tooOften = "429 TooManyProviderTokenUpdates"
)

// The source is "Establishing a token-based connection to APNs".
var providerTokens = map[string][]tokenStep{
	"valid":                       {{0, "new", valid}},
	"59 minutes old":              {{0, "59m", valid}},
	"an hour old":                 {{0, "60m", valid}},
	"over an hour old":            {{0, "61m", expired}},
	"expires in use":              {{0, "new", valid}, {time.Hour, "new", valid}, {time.Second, "new", expired}},
	"59 minutes ahead":            {{0, "-59m", valid}},
	"61 minutes ahead":            {{0, "-61m", invalid}},
	"iat in milliseconds":         {{0, "ms", invalid}},
	"iat a string":                {{0, "string", invalid}},
	"wrong key":                   {{0, "wrong key", invalid}},
	"unknown key ID":              {{0, "unknown", invalid}},
	"wrong team":                  {{0, "wrong team", invalid}},
	"wrong alg":                   {{0, "alg", invalid}},
	"alg none":                    {{0, "none", invalid}},
	"DER":                         {{0, "DER", invalid}},
	"padded":                      {{0, "padded", invalid}},
	"no signature":                {{0, "cut", invalid}},
	"changed early":               {{0, "new", valid}, {19 * time.Minute, "new2", tooOften}, {0, "new", valid}},
	"changed in time":             {{0, "new", valid}, {20 * time.Minute, "new2", valid}},
	"changed back early":          {{0, "new", valid}, {20 * time.Minute, "new2", valid}, {time.Minute, "new", tooOften}, {19 * time.Minute, "new", valid}},
	"changed from an invalid one": {{0, "DER", invalid}, {0, "new", valid}},
	"changed from an expired one": {{0, "61m", expired}, {0, "new", valid}},
	"another team":                {{0, "new", valid}, {time.Hour, "team", invalid}, {0, "new", valid}},
	"another key":                 {{0, "new", valid}, {time.Hour, "key", "403 UnrelatedKeyIdInToken"}, {0, "new", valid}},
	"the other team first":        {{0, "team", valid}, {0, "new", invalid}},
	"the other key first":         {{0, "key", valid}, {0, "new", "403 UnrelatedKeyIdInToken"}},
}

// A connection checks each provider token, and what tokens it has used before.
func TestProviderTokens(t *testing.T) {
	for name, steps := range providerTokens {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, true, nil, nil)
			tokens := signTokens(t, s)
			c := connect(t, s, false)
			for i, step := range steps {
				time.Sleep(step.after)
				resp := request{header: map[string]string{"authorization": tokens[step.token]}}.send(t.Context(), c)
				if resp.String() != step.want {
					t.Errorf("%s: step %d: got %v, want %s", name, i, resp, step.want)
				}
			}
			if n := len(s.Records()); n != len(steps) {
				t.Errorf("%s: got %d records, want %d", name, n, len(steps))
			}
		})
	}
}

// signTokens returns the authorization headers of providerTokens.
func signTokens(t *testing.T, s *apnstest.Server) map[string]string {
	t.Helper()
	otherKey := s.AddAuthKey("OTHERKEY01", apnstest.TeamID)
	otherTeam := s.AddAuthKey("OTHERKEY02", "OTHERTEAM1")
	now := strconv.FormatInt(time.Now().Unix(), 10)
	return map[string]string{
		"new":        jwt{}.sign(t, s),
		"59m":        jwt{age: 59 * time.Minute}.sign(t, s),
		"60m":        jwt{age: 60 * time.Minute}.sign(t, s),
		"61m":        jwt{age: 61 * time.Minute}.sign(t, s),
		"-59m":       jwt{age: -59 * time.Minute}.sign(t, s),
		"-61m":       jwt{age: -61 * time.Minute}.sign(t, s),
		"ms":         jwt{iat: now + "000"}.sign(t, s),
		"string":     jwt{iat: `"` + now + `"`}.sign(t, s),
		"wrong key":  jwt{key: otherKey}.sign(t, s),
		"unknown":    jwt{kid: "UNKNOWN001"}.sign(t, s),
		"wrong team": jwt{iss: "OTHERTEAM1"}.sign(t, s),
		"alg":        jwt{alg: "ES384"}.sign(t, s),
		"none":       jwt{alg: "none"}.sign(t, s),
		"DER":        jwt{der: true}.sign(t, s),
		"padded":     jwt{padding: true}.sign(t, s),
		"cut":        jwt{cut: true}.sign(t, s),
		"team":       jwt{key: otherTeam, kid: "OTHERKEY02", iss: "OTHERTEAM1"}.sign(t, s),
		"key":        jwt{key: otherKey, kid: "OTHERKEY01"}.sign(t, s),
		"new2":       jwt{age: -time.Second}.sign(t, s),
	}
}
