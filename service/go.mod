module github.com/throttlekit/throttlekit-go/service

go 1.26.0

require github.com/throttlekit/throttlekit-go v0.0.0

replace github.com/throttlekit/throttlekit-go => ..
