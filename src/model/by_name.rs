//! A few values, each with a name.

use super::snapshot::Name;

/// Values in the order of their names. Nearly all streams have one group: a `BTreeMap` makes room for eleven.
#[derive(Clone, Debug, PartialEq)]
pub struct ByName<T>(Vec<(Name, T)>);

impl<T> ByName<T> {
    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &Name) -> Option<&T> {
        let at = self.0.binary_search_by(|(other, _)| other.cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &T)> {
        self.into_iter()
    }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Of values with the same name the first is taken.
impl<T> FromIterator<(Name, T)> for ByName<T> {
    fn from_iter<I: IntoIterator<Item = (Name, T)>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
        values.dedup_by(|(later, _), (first, _)| later == first);
        Self(values)
    }
}

impl<T, const N: usize> From<[(Name, T); N]> for ByName<T> {
    fn from(values: [(Name, T); N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T> IntoIterator for ByName<T> {
    type Item = (Name, T);
    type IntoIter = std::vec::IntoIter<(Name, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a ByName<T> {
    type Item = (&'a Name, &'a T);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (Name, T)>, fn(&'a (Name, T)) -> (&'a Name, &'a T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(name, value)| (name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_in_the_order_of_their_names_each_once() {
        let values = ByName::from([("b".into(), 1), ("a".into(), 2), ("b".into(), 3)]);
        assert_eq!(values.iter().collect::<Vec<_>>(), [(&"a".into(), &2), (&"b".into(), &1)]);
        assert_eq!((values.get(&"b".into()), values.get(&"c".into())), (Some(&1), None));
    }
}
