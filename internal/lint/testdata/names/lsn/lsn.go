package lsn

var util, types, helper int
