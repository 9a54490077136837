module example.com/apns/interop/sideshow

go 1.26

require (
	github.com/golang-jwt/jwt/v4 v4.4.1
	github.com/sideshow/apns2 v0.25.0
)

require (
	example.com/apns v0.0.0
	golang.org/x/net v0.0.0-20220403103023-749bd193bc2b // indirect
	golang.org/x/text v0.3.7 // indirect
)

replace example.com/apns => ../..
