//! Which members of an event identify a person, by their names.

use crate::domain::ids::IdKind;

/// What becomes of a member's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    Keep,
    Drop,
    Pseudonym(IdKind),
    Url,
    Ip,
    /// An object that describes a person, or a text that names one.
    Person,
    /// An object that describes a person or a person's device; a text here is harmless.
    Personal,
}

/// What to do with a member by its name. Case, `_`, `-` and blanks don't matter.
pub(super) fn treatment(name: &str, personal: bool) -> Treatment {
    // No listed name is longer.
    let mut buffer = [0u8; 20];
    let mut len = 0;
    for byte in name.bytes() {
        if matches!(byte, b'_' | b'-' | b' ' | b'$') {
            continue;
        }
        match buffer.get_mut(len) {
            Some(slot) => *slot = byte.to_ascii_lowercase(),
            None => return Treatment::Keep,
        }
        len += 1;
    }
    match &buffer[..len] {
        b"email" | b"emailaddress" | b"mail" | b"useremail" | b"customeremail" => {
            Treatment::Pseudonym(IdKind::Email)
        }
        b"phone" | b"phonenumber" | b"mobile" | b"mobilenumber" | b"mobilephone" | b"telephone" | b"tel"
        | b"fax" => Treatment::Pseudonym(IdKind::Phone),
        b"userid" | b"customerid" | b"accountid" | b"uid" | b"memberid" | b"externalid" | b"previousid" => {
            Treatment::Pseudonym(IdKind::User)
        }
        b"anonymousid" | b"visitorid" | b"clientid" | b"cookieid" => Treatment::Pseudonym(IdKind::Anonymous),
        b"sessionid" => Treatment::Pseudonym(IdKind::Session),
        b"deviceid" | b"fingerprint" => Treatment::Pseudonym(IdKind::Other),
        b"firstname" | b"lastname" | b"fullname" | b"middlename" | b"surname" | b"givenname"
        | b"familyname" | b"nickname" | b"username" | b"login" | b"cardholder" | b"cardholdername"
        | b"customername" => Treatment::Drop,
        b"address" | b"address1" | b"address2" | b"addressline1" | b"addressline2" | b"street"
        | b"streetaddress" | b"housenumber" | b"postcode" | b"postalcode" | b"zip" | b"zipcode"
        | b"billingaddress" | b"shippingaddress" | b"deliveryaddress" => Treatment::Drop,
        b"latitude" | b"longitude" | b"lat" | b"lng" | b"lon" | b"birthday" | b"birthdate"
        | b"dateofbirth" | b"dob" | b"ssn" | b"nationalid" | b"taxid" | b"vatid" | b"passport"
        | b"avatar" => Treatment::Drop,
        b"usertoken" | b"token" | b"accesstoken" | b"idtoken" | b"refreshtoken" | b"authorization"
        | b"password" | b"passwd" | b"secret" | b"apikey" | b"writekey" | b"cookie" | b"cookies" => {
            Treatment::Drop
        }
        b"cardnumber" | b"creditcard" | b"cardno" | b"cvv" | b"cvc" | b"iban" | b"accountnumber"
        | b"sortcode" => Treatment::Drop,
        b"advertisingid" | b"idfa" | b"idfv" | b"gaid" | b"gclid" | b"fbclid" | b"msclkid" => Treatment::Drop,
        b"ip" | b"ipaddress" | b"remoteaddr" | b"clientip" => Treatment::Ip,
        b"url" | b"uri" | b"href" | b"link" | b"path" | b"search" | b"referrer" | b"referer" | b"pageurl"
        | b"imageurl" => Treatment::Url,
        b"user" | b"customer" | b"shopper" | b"recipient" | b"person" | b"buyer" => Treatment::Person,
        b"traits" | b"contact" | b"device" | b"billing" => Treatment::Personal,
        b"name" | b"title" if personal => Treatment::Drop,
        b"id" if personal => Treatment::Pseudonym(IdKind::User),
        _ => Treatment::Keep,
    }
}
