module example.com/apns/interop/pkcs12

go 1.26.0

require example.com/apns v0.0.0

require software.sslmate.com/src/go-pkcs12 v0.7.4

require golang.org/x/crypto v0.11.0 // indirect

replace example.com/apns => ../..
