//! The limits of a listener, named: one list makes the enum, the list of all, and the names under which they are counted. Which limits there
//! are is the business of the edge and of the auth service.

/// Makes an enum of limits from lines `Name = "configuration.key"`: the variants, `ALL` in their order, so that `limit as usize` is a
/// place in it, and `key()`, for metrics and logs.
#[macro_export]
macro_rules! limits {
    ($(#[$meta:meta])* $visible:vis enum $name:ident { $($(#[$doc:meta])* $limit:ident = $key:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $visible enum $name {
            $($(#[$doc])* $limit,)+
        }

        impl $name {
            /// Every limit.
            $visible const ALL: &[Self] = &[$(Self::$limit),+];

            /// The configuration key where it is set, below the half's own.
            $visible fn key(self) -> &'static str {
                match self { $(Self::$limit => $key),+ }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    limits! {
        /// Two.
        enum Limit {
            /// One.
            Header = "timeouts.header",
            /// Another.
            Body = "timeouts.body",
        }
    }

    #[test]
    fn every_limit_has_its_own_place_and_its_own_name() {
        assert_eq!(Limit::ALL, [Limit::Header, Limit::Body]);
        assert_eq!((Limit::Header as usize, Limit::Body as usize), (0, 1));
        assert_eq!(
            Limit::ALL.iter().map(|limit| limit.key()).collect::<Vec<_>>(),
            ["timeouts.header", "timeouts.body"]
        );
    }
}
